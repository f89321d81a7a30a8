"""What the queue tells of its jobs over HTTP: their order, the one thing that blocks each, and when they should start."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service import jobs, workers
from service.database import Database
from service.jobs import Fence
from service.tables import Job, User, Worker
from tests.integration.api.conftest import Team, add_host, submit
from tests.integration.jobs.conftest import fail, stop_for, succeed


def explain(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}/explain").json()
    return told


def waiting(client: httpx.Client, pool: str = "default") -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = client.get("/v1/queue", params={"pool": pool}).json()["waiting"]
    return told


def why(client: httpx.Client, job: dict[str, Any]) -> tuple[str, list[str]]:
    """A queued job's blocker, which the queue, the job itself and its explanation tell alike."""
    told = explain(client, job)
    (line,) = (each for each in waiting(client, told["pool"]) if each["id"] == job["id"])
    place = client.get(f"/v1/jobs/{job['id']}").json()["queue"]
    assert line["waiting_for"] == told["waiting_for"] == told["blocker"]["message"] == place["waiting_for"]
    assert line["position"] == told["position"] == told["ahead"] + 1 == place["position"]
    assert line["blocker"] | {"until": None} == told["blocker"] | {"until": None}, "but for the moment of each look"
    return told["blocker"]["cause"], told["blocker"]["job_ids"]


def test_each_waiting_job_has_its_place_and_the_one_thing_that_blocks_it(team: Team, database: Database) -> None:
    ana, ben = team.join("ana"), team.join("ben")
    hundred = [submit(ana) for _ in range(4)]
    one = submit(ben)
    host = add_host(database, "cpu:2")
    assert [job["id"] for job in waiting(ben)] == [job["id"] for job in (hundred[0], one, *hundred[1:])]
    assert explain(ana, hundred[0])["waiting_for"] == "a moment: cpu:0 of host gpu-1 is free for it"
    assert [why(ben, job)[0] for job in (hundred[0], one, hundred[1])] == ["starting", "starting", "devices"]
    assert host.claims() == [hundred[0]["id"], one["id"]]
    assert why(ana, hundred[1]) == ("devices", [hundred[0]["id"], one["id"]])
    assert explain(ana, hundred[1])["waiting_for"].startswith("a CPU slot: host gpu-1 has 0 free until about ")
    assert why(ana, hundred[2]) == ("jobs_ahead", [hundred[1]["id"]])
    words = f"1 job that starts earlier for the same devices; {hundred[1]['id']} is next"
    assert explain(ana, hundred[2])["waiting_for"] == words
    assert why(ana, hundred[3]) == ("jobs_ahead", [hundred[1]["id"], hundred[2]["id"]])


def test_who_used_less_for_its_weight_stands_first(team: Team, admin: httpx.Client, database: Database) -> None:
    ana, ben = team.join("ana"), team.join("ben")
    host = add_host(database)
    submit(ana)
    host.claim()
    first, second = submit(ana), submit(ben)
    assert [job["id"] for job in waiting(ana)] == [second["id"], first["id"]]
    share = explain(ana, first)["fair_share"]
    assert (share["weight"], share["level"]) == (1.0, pytest.approx(60, rel=0.01)), "ten minutes of a CPU slot, of a tenth each"
    assert explain(ben, second)["fair_share"]["level"] == 0


def test_the_start_is_told_by_the_measured_steps_of_what_runs(member: httpx.Client, database: Database) -> None:
    host = add_host(database)
    submit(member)
    fence = host.start()
    host.do(jobs.record_progress, fence, {"phase": "student", "step": 100}, remaining_seconds=1000)
    job, after = submit(member), submit(member)
    start = {name: datetime.fromisoformat(at) for name, at in explain(member, job)["expected_start"].items()}
    began = datetime.fromisoformat(member.get(f"/v1/jobs/{fence.job_id}").json()["started_at"])
    assert began + timedelta(seconds=700) < start["p50"] < start["p90"] < began + timedelta(seconds=2000)
    assert explain(member, after)["expected_start"] is None, "nobody knows yet how long such jobs take"
    (running,) = member.get("/v1/queue").json()["running"]
    assert datetime.fromisoformat(running["expected_end_at"]) == began + timedelta(seconds=1000) or running["expected_end_at"]


def test_no_start_is_told_for_later_than_the_time_limit_of_what_runs(member: httpx.Client, database: Database) -> None:
    host = add_host(database)
    submit(member, resources={"max_runtime_seconds": 100})
    fence = host.start()
    host.do(jobs.record_progress, fence, {"phase": "student", "step": 1}, remaining_seconds=100_000)
    start = explain(member, submit(member))["expected_start"]
    began = datetime.fromisoformat(member.get(f"/v1/jobs/{fence.job_id}").json()["started_at"])
    assert datetime.fromisoformat(start["p90"]) <= began + timedelta(seconds=100)


def test_what_an_owner_starts_on_another_host_at_the_same_moment_takes_no_turn_away(team: Team, database: Database) -> None:
    """All hosts are taken to claim at once: the second job of the queue does not stand in the way of the first."""
    ana, ben = team.join("ana"), team.join("ben")
    for devices, name in (("cpu:1", "gpu-1"), ("cuda:1", "gpu-2")):
        add_host(database, devices, name=name)
    first = submit(ana, resources={"gpus": 1})
    second = submit(ben, resources={"gpus": 1})
    low = submit(ana, priority="low")
    assert [job["id"] for job in waiting(ana)] == [first["id"], second["id"], low["id"]]
    assert why(ana, first)[0] == "starting"
    assert why(ben, second) == ("devices", [first["id"]])
    assert why(ana, low)[0] == "starting"


def test_a_user_at_the_limit_waits_for_one_of_the_own_jobs(team: Team, admin: httpx.Client, database: Database) -> None:
    ana, ben = team.join("ana"), team.join("ben")
    assert admin.patch("/v1/users/ana", json={"max_running_jobs": 1}).status_code == 200
    host = add_host(database, "cpu:2")
    first, second = submit(ana), submit(ana)
    assert host.claims() == [first["id"]]
    assert why(ana, second) == ("user_limit", [])
    assert explain(ana, second)["waiting_for"] == "one of ana's jobs to end: 1 run or start now, and 1 may"
    assert explain(ana, second)["fair_share"]["running"] == 1
    other = submit(ben)
    assert why(ben, other)[0] == "starting", "a limit holds up nobody else"


def test_what_no_worker_can_do_now_is_told_of_the_workers(member: httpx.Client, admin: httpx.Client, database: Database) -> None:
    job = submit(member, resources={"cpu_slots": 2})
    assert (why(member, job)[0], explain(member, job)["live_workers"]) == ("no_worker", 0)
    assert explain(member, job)["waiting_for"] == "a worker: none is alive in pool 'default'"
    add_host(database, "cpu:1")
    assert why(member, job)[0] == "no_suitable_worker"
    assert explain(member, job)["waiting_for"] == "2 CPU slots: no worker of pool 'default' has as many"
    large = add_host(database, "cpu:2", name="gpu-2")
    assert why(member, job)[0] == "starting"
    assert explain(member, job)["waiting_for"] == "a moment: cpu:0, cpu:1 of host gpu-2 are free for it"
    assert admin.post(f"/v1/workers/{large.id}/drain").json()["draining"] is True
    assert why(member, job)[0] == "draining"
    assert explain(member, job)["suitable_workers"] == 0


def test_a_job_of_high_priority_tells_who_stops_for_it_and_the_stopped_one_that_it_comes_after(
    member: httpx.Client, admin: httpx.Client, database: Database
) -> None:
    host = add_host(database)
    low = submit(member, priority="low")
    fence = host.start()
    high = submit(admin, priority="high")
    assert why(admin, high) == ("preempting", [low["id"]])
    assert member.get(f"/v1/jobs/{low['id']}").json()["stop_requested"] == "preempt"
    host.do(stop_for("preempt"), fence)
    assert why(admin, high)[0] == "starting"
    assert why(member, low) == ("devices", [high["id"]])
    assert host.claims() == [high["id"]]
    assert why(member, low) == ("devices", [high["id"]])


def test_a_small_job_tells_of_the_host_that_is_kept_for_a_large_one_and_a_short_one_passes(
    team: Team, database: Database
) -> None:
    ana, ben, kim = (team.join(name) for name in ("ana", "ben", "kim"))
    host = add_host(database, "cuda:2")
    running = submit(kim, resources={"gpus": 1, "max_runtime_seconds": 3600})
    host.claim()
    large = submit(ana, resources={"gpus": 2})
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == large["id"]).values(waiting_since=Job.waiting_since - timedelta(hours=1)))
    long = submit(ben, resources={"gpus": 1})
    short = submit(ben, resources={"gpus": 1, "max_runtime_seconds": 600})
    assert host.claims() == [short["id"]], "it ends before the running job does"
    assert why(ben, long) == ("jobs_ahead", [large["id"]])
    cause, holders = why(ana, large)
    assert (cause, set(holders)) == ("devices", {running["id"], short["id"]})
    host.do(succeed, Fence(short["id"], 1))
    assert host.claims() == []
    assert why(ben, long) == ("kept_host", [large["id"]]), "a GPU is free, and not for a job of a day"
    assert why(ana, large) == ("devices", [running["id"]])
    assert explain(ana, large)["waiting_for"].startswith("2 GPUs: host gpu-1 has 1 free until about ")
    assert explain(ana, large)["waiting_for"].endswith(", and is kept free for it")


def test_what_is_not_queued_tells_what_it_waits_for_too(member: httpx.Client, database: Database) -> None:
    host = add_host(database)
    needed = submit(member)
    fence = host.start()
    other = submit(member)
    assert member.post(f"/v1/jobs/{other['id']}/pause").json()["status"] == "paused"
    needing = submit(member, depends_on=[needed["id"], other["id"]])
    told = explain(member, needing)
    assert (told["status"], told["blocked_by"]) == ("waiting", sorted([needed["id"], other["id"]]))
    assert told["waiting_for"] == f"jobs {needed['id']}, which is running, and {other['id']}, which is paused, to succeed"
    assert (told["position"], told["blocker"], told["fair_share"], told["expected_start"]) == (None, None, None, None)
    host.do(succeed, fence)
    assert explain(member, needing)["waiting_for"] == f"job {other['id']}, which is paused, to succeed"
    assert f"stillhouse resume {other['id']}" in explain(member, other)["waiting_for"]
    assert explain(member, needed)["waiting_for"] is None
    member.post(f"/v1/jobs/{other['id']}/resume")
    host.do(fail, host.start())
    assert (explain(member, needing)["status"], explain(member, needing)["waiting_for"]) == ("failed", None)


def test_the_queue_of_a_pool_is_its_own_and_one_that_nobody_knows_is_refused_with_those_that_are_known(
    member: httpx.Client, database: Database
) -> None:
    host = add_host(database, pool="lab")
    first, second = (submit(member, resources={"pool": "lab"}) for _ in range(2))
    host.claim()
    elsewhere = submit(member)
    lab = member.get("/v1/queue", params={"pool": "lab"}).json()
    assert ([job["id"] for job in lab["running"]], [job["id"] for job in lab["waiting"]]) == ([first["id"]], [second["id"]])
    assert [job["id"] for job in member.get("/v1/queue").json()["waiting"]] == [elsewhere["id"], second["id"]]
    assert member.get("/v1/queue", params={"pool": "other"}).json()["num_waiting"] == 0
    answer = member.get("/v1/queue", params={"pool": "labs"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "pool")
    assert answer.json()["detail"] == "there is no pool 'labs'; use 'default' or 'forgotten' or 'lab' or 'other'"


def test_a_job_behind_the_last_place_that_is_counted_tells_its_owners_share_all_the_same(
    member: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.scheduling.explain.MAX_PLACES", 2)
    host = add_host(database)
    submit(member)
    host.claim()
    _, _, behind = (submit(member) for _ in range(3))
    told = explain(member, behind)
    assert (told["position"], told["blocker"]["cause"], told["expected_start"]) == (3, "jobs_ahead", None)
    assert told["waiting_for"] == "the turn of more than 2 jobs that start earlier"
    assert told["fair_share"]["used"] == pytest.approx(60, rel=0.01)
    queue = member.get("/v1/queue").json()
    assert (len(queue["waiting"]), queue["num_waiting"]) == (2, 3)


@pytest.mark.parametrize("cause", ["no_worker", "draining", "user_limit"])
def test_a_job_behind_the_last_place_that_is_counted_tells_what_keeps_it_beside_those_before_it(
    member: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    monkeypatch.setattr("service.scheduling.explain.MAX_PLACES", 2)
    host = None if cause == "no_worker" else add_host(database)
    _, _, behind = (submit(member) for _ in range(3))
    with database.transaction() as session:
        if cause == "draining" and host is not None:
            workers.drain(session, host.id, finish=True)
        if cause == "user_limit":
            session.execute(update(User).values(max_running_jobs=0))
    assert explain(member, behind)["blocker"]["cause"] == cause


def test_a_pool_whose_workers_are_gone_is_known_as_long_as_jobs_wait_in_it(member: httpx.Client, database: Database) -> None:
    add_host(database, pool="lab")
    job = submit(member, resources={"pool": "lab"})
    with database.transaction() as session:
        session.execute(Worker.__table__.delete())  # type: ignore[attr-defined]
    assert why(member, job)[0] == "no_worker"
