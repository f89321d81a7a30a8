"""What the queue could never serve is refused at once, with the place, the reason and what to change."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.database import Database
from service.ids import new_id
from tests.integration.api.conftest import Team, add_host, spec, submit
from tests.integration.jobs.conftest import succeed

BIG = {"gpus": 1, "min_gpu_memory_gib": 81.0}


@pytest.mark.parametrize(
    ("resources", "pointer", "message"),
    [
        ({"gpus": 5}, "/resources/gpus", "no worker of pool 'default' has 5 GPUs: the most on one host is 4"),
        (
            BIG,
            "/resources/min_gpu_memory_gib",
            "no worker of pool 'default' has a GPU of 81 GiB or more; its largest GPU has 80 GiB",
        ),
        (
            {"gpus": 3, "min_gpu_memory_gib": 50.0},
            "/resources/min_gpu_memory_gib",
            "no worker of pool 'default' has 3 GPUs of 50 GiB or more; its best host has 3 of 40 GiB",
        ),
        ({"cpu_slots": 3}, "/resources/cpu_slots", "no worker of pool 'default' has 3 CPU slots: the most on one host is 2"),
        (
            {"gpus": 1, "pool": "other"},
            "/resources/gpus",
            "no worker of pool 'other' has a GPU: none has any GPU",
        ),
        (
            {"pool": "labs"},
            "/resources/pool",
            "there is no pool 'labs': no worker has served it, and the settings do not name it; "
            "use 'default' or 'forgotten' or 'other'",
        ),
    ],
)
def test_what_no_worker_could_ever_hold_is_refused_with_the_most_that_there_is(
    member: httpx.Client, database: Database, resources: dict[str, Any], pointer: str, message: str
) -> None:
    add_host(database, "cuda:4,cpu:2", gib=40)
    add_host(database, "cuda:2", gib=80)
    add_host(database, "cpu:1", pool="other")
    for parameters in ({}, {"dry_run": "true"}):
        answer = member.post("/v1/jobs", json=spec(resources=resources), params=parameters)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"pointer": pointer, "message": message}]
    assert member.get("/v1/jobs").json()["data"] == []


def test_a_pool_that_is_named_and_has_no_worker_yet_is_trusted(member: httpx.Client) -> None:
    job = submit(member, resources=BIG | {"pool": "other"})
    assert member.get(f"/v1/jobs/{job['id']}/explain").json()["blocker"]["cause"] == "no_worker"


@pytest.mark.parametrize(
    ("resources", "pointer"),
    [
        ({"gpus": -1}, "/resources/gpus"),
        ({"gpus": "1"}, "/resources/gpus"),
        ({"gpus": True}, "/resources/gpus"),
        ({"cpu_slots": 0}, "/resources/cpu_slots"),
        ({"max_runtime_seconds": 0}, "/resources/max_runtime_seconds"),
        ({"min_gpu_memory_gib": 10.0}, "/resources"),
        ({"gpus": 1, "cpu_slots": 2}, "/resources"),
        ({"gpus": 1, "min_gpu_memory_gib": -1.0}, "/resources/min_gpu_memory_gib"),
    ],
)
def test_resources_that_make_no_sense_are_refused_with_their_place(
    member: httpx.Client, resources: dict[str, Any], pointer: str
) -> None:
    answer = member.post("/v1/jobs", json=spec(resources=resources))
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_jobs_that_would_wait_for_each_other_are_refused_with_the_way_round(member: httpx.Client) -> None:
    first = submit(member)
    second = submit(member, depends_on=[first["id"]])
    third = submit(member, teacher={"source": f"job:{second['id']}"})
    path = f"/v1/jobs/{first['id']}"
    before = member.get(path).json()
    answer = member.patch(path, json={"depends_on": [third["id"]]})
    assert (answer.status_code, answer.json()["code"]) == (422, "circular_dependency")
    way = f"{first['id']} needs {third['id']} needs {second['id']} needs {first['id']}"
    assert answer.json()["detail"] == f"{way}: none of them could ever start; leave {third['id']} out"
    own = member.patch(path, json={"depends_on": [first["id"]]})
    assert own.json()["code"] == "circular_dependency"
    assert member.get(path).json() == before


def test_a_needed_job_that_does_not_exist_or_failed_is_refused_with_its_place(member: httpx.Client) -> None:
    nobody, gone = new_id("job"), submit(member)["id"]
    member.post(f"/v1/jobs/{gone}/cancel")
    answer = member.post("/v1/jobs", json=spec(depends_on=[nobody, gone]))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "/depends_on/0", "message": f"there is no job {nobody!r}; GET /v1/jobs lists those that exist"},
        {"pointer": "/depends_on/1", "message": f"job {gone} is cancelled; name one that can still succeed"},
    ]
    changed = member.patch(f"/v1/jobs/{submit(member)['id']}", json={"depends_on": [nobody, gone]})
    assert (changed.status_code, changed.json()["errors"]) == (422, answer.json()["errors"])


def test_who_may_not_change_a_job_is_told_that_alone(team: Team, member: httpx.Client) -> None:
    job = f"/v1/jobs/{submit(member)['id']}"
    other = team.join("ben")
    changes: list[dict[str, Any]] = [{"name": "mine"}, {"depends_on": []}, {"depends_on": [new_id("job")]}]
    for change in changes:
        assert other.patch(job, json=change).status_code == 403


def test_a_dry_run_tells_of_a_full_queue_as_a_submission_does(team: Team, admin: httpx.Client) -> None:
    ana = team.join("ana")
    user = next(each for each in admin.get("/v1/users").json()["data"] if each["name"] == "ana")
    for limit, words in (
        (1, "1 of your jobs wait already, which is your limit; try again once"),
        (0, "none of your jobs may wait"),
    ):
        admin.patch(f"/v1/users/{user['id']}", json={"max_queued_jobs": limit})
        if limit:
            submit(ana)
        for query in ("", "?dry_run=true"):
            answer = ana.post(f"/v1/jobs{query}", json=spec())
            assert (answer.status_code, answer.json()["code"]) == (429, "queue_limit_reached")
            assert answer.json()["detail"].startswith(words)
            assert answer.headers["x-should-retry"] == "false"
            assert "Retry-After" not in answer.headers


def test_a_resume_over_the_limit_is_refused_as_a_submission_is(team: Team, admin: httpx.Client) -> None:
    ana = team.join("ana")
    user = next(each for each in admin.get("/v1/users").json()["data"] if each["name"] == "ana")
    admin.patch(f"/v1/users/{user['id']}", json={"max_queued_jobs": 1})
    paused = f"/v1/jobs/{submit(ana)['id']}"
    ana.post(f"{paused}/pause")
    submit(ana)
    submitted, resumed = ana.post("/v1/jobs", json=spec()), ana.post(f"{paused}/resume")
    for answer in (submitted, resumed):
        assert (answer.status_code, answer.headers["x-should-retry"], "Retry-After" in answer.headers) == (429, "false", False)
    assert resumed.json()["detail"] == submitted.json()["detail"]
    assert ana.get(paused).json()["status"] == "paused"


def test_what_a_job_needs_can_be_changed_until_it_has_started(member: httpx.Client, database: Database) -> None:
    host, needed, job = add_host(database), submit(member), submit(member)
    path = f"/v1/jobs/{job['id']}"
    changed = member.patch(path, json={"depends_on": [needed["id"]]}).json()
    assert (changed["status"], changed["spec"]["depends_on"]) == ("waiting", [needed["id"]])
    assert member.patch(path, json={"depends_on": []}).json()["status"] == "queued"
    assert host.claims() == [needed["id"]]
    refused = member.patch(f"/v1/jobs/{needed['id']}", json={"depends_on": [job["id"]]})
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_transition")


def test_a_raise_above_normal_is_refused_to_who_is_no_admin_and_a_step_down_is_not(
    team: Team, admin: httpx.Client, member: httpx.Client
) -> None:
    job = submit(member, priority="low")
    path = f"/v1/jobs/{job['id']}"
    for answer in (member.post("/v1/jobs", json=spec(priority="high")), member.patch(path, json={"priority": "high"})):
        assert (answer.status_code, answer.json()["error"]["param"]) == (403, "/priority")
        assert answer.json()["detail"] == "priority 'high' is an admin's to give; use 'normal' or 'low'"
    assert member.patch(path, json={"priority": "normal"}).json()["priority"] == "normal"
    assert team.join("ben").patch(path, json={"priority": "low"}).status_code == 403, "another's job"
    assert admin.patch(path, json={"priority": "high"}).json()["priority"] == "high"
    assert member.patch(path, json={"priority": "high", "name": "as it is"}).status_code == 200
    assert member.patch(path, json={"priority": "low"}).json()["priority"] == "low"
    assert member.patch(path, json={"priority": "urgent"}).status_code == 422


def test_changes_at_once_that_would_close_a_circle_are_told_apart_and_one_of_them_stays(member: httpx.Client) -> None:
    for _ in range(5):
        first, second = submit(member)["id"], submit(member)["id"]

        def depend(job: str, needed: str) -> tuple[int, str | None]:
            answer = member.patch(f"/v1/jobs/{job}", json={"depends_on": [needed]})
            return answer.status_code, answer.json().get("code")

        with ThreadPoolExecutor(2) as pool:
            answers = set(pool.map(depend, [first, second], [second, first]))
        assert answers == {(200, None), (422, "circular_dependency")}


def test_a_change_of_what_a_job_needs_does_not_get_in_the_way_of_that_jobs_end(member: httpx.Client, database: Database) -> None:
    host = add_host(database)
    for _ in range(5):
        needed = submit(member)["id"]
        fence = host.start()
        job = f"/v1/jobs/{submit(member, depends_on=[needed])['id']}"
        with ThreadPoolExecutor(2) as pool:
            changed = pool.submit(member.patch, job, json={"depends_on": [needed]})
            assert pool.submit(host.do, succeed, fence).result() == "applied"
        assert changed.result().status_code == 200
        assert member.get(job).json()["status"] == "queued"
        member.post(f"{job}/cancel")
