"""Jobs over HTTP: submit, read, list, change, stop, delete."""

import json

import httpx
import pytest

from service import jobs
from service.database import Database
from service.errors import JobFailure
from tests.integration.api.conftest import Team, run_one, spec, submit


def test_a_submitted_job_is_queued_and_can_be_read(member: httpx.Client) -> None:
    answer = member.post("/v1/jobs", json=spec(labels={"project": "demo"}))
    job = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"] == f'"{job["version"]}"'
    assert member.get(f"/v1/jobs/{job['id']}").json() == job
    assert job["object"] == "job"
    assert job["status"] == "queued"
    assert job["terminal"] is False
    assert job["owner"] == "ada"
    assert job["queue"] == {
        "position": 1,
        "waiting_for": "a worker: none is alive in pool 'default'",
        "expected_start": None,
    }
    assert job["created_at"].endswith("Z")
    assert job["spec"]["training"]["optimizer"] == {
        "name": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
    }


def test_posting_a_jobs_spec_again_repeats_it(member: httpx.Client) -> None:
    job = submit(member)
    assert member.post("/v1/jobs", json=job["spec"]).json()["spec"] == job["spec"]


def test_a_job_may_be_sent_as_yaml(member: httpx.Client) -> None:
    text = """
        task: image-classification
        dataset: {source: "builtin:digits"}
        teacher: {source: train, architecture: {name: small-cnn}}
        student: {architecture: {name: small-cnn, width: 8}}
    """
    answer = member.post("/v1/jobs", content=text, headers={"content-type": "application/yaml"})
    assert answer.status_code == 201, answer.text


def test_a_dry_run_answers_the_whole_spec_and_stores_nothing(member: httpx.Client) -> None:
    answer = member.post("/v1/jobs", params={"dry_run": True}, json=spec())
    assert answer.status_code == 200
    assert answer.json()["training"]["seed"] == 0
    assert member.get("/v1/jobs").json() == {"object": "list", "data": [], "has_more": False}


WITHOUT_EFFECT = {"dataset": {"source": "builtin:digits", "clip_seconds": 3.0, "test_fraction": 0.4}}


def test_what_a_spec_says_without_effect_is_told_with_the_job_and_in_its_events(member: httpx.Client) -> None:
    job = submit(member, **WITHOUT_EFFECT)
    clips, fraction = job["warnings"]
    assert clips == {
        "code": "field_without_effect",
        "message": "/dataset/clip_seconds has no effect: it is of sound, and image-classification reads none",
    }
    assert fraction["message"].startswith("/dataset/test_fraction has no effect: the test split is the dataset's own 'test'")
    assert member.get(f"/v1/jobs/{job['id']}").json()["warnings"] == job["warnings"]
    events = member.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [event["message"] for event in events if event["type"] == "job.warning"] == [
        warning["message"] for warning in job["warnings"]
    ]
    assert submit(member)["warnings"] == []


def test_a_dry_run_has_the_warnings_in_a_header(member: httpx.Client) -> None:
    dry = member.post("/v1/jobs", params={"dry_run": True}, json=spec(**WITHOUT_EFFECT))
    assert json.loads(dry.headers["stillhouse-warnings"]) == submit(member, **WITHOUT_EFFECT)["warnings"]
    assert member.post("/v1/jobs", json=dry.json()).status_code == 201


def test_lists_are_newest_first_and_paged_by_the_last_id(member: httpx.Client) -> None:
    ids = [submit(member)["id"] for _ in range(5)]
    first = member.get("/v1/jobs", params={"limit": 2}).json()
    second = member.get("/v1/jobs", params={"limit": 2, "after": first["data"][-1]["id"]}).json()
    third = member.get("/v1/jobs", params={"limit": 2, "after": second["data"][-1]["id"]}).json()
    listed = [job["id"] for page in (first, second, third) for job in page["data"]]
    assert listed == ids[::-1]
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]


def test_lists_can_be_narrowed_by_state_owner_and_labels(member: httpx.Client, team: Team) -> None:
    ben = team.join("ben")
    mine = submit(member, labels={"project": "x", "kind": "a=b"})["id"]
    his = submit(ben, labels={"project": "y"})["id"]
    ben.post(f"/v1/jobs/{his}/cancel")

    def ids(**params: object) -> list[str]:
        return [job["id"] for job in member.get("/v1/jobs", params=params).json()["data"]]  # type: ignore[arg-type]

    assert ids(status="queued") == [mine]
    assert ids(status="cancelled,failed") == [his]
    assert ids(status=["cancelled", "queued"]) == [his, mine]
    assert ids(owner="ben") == [his]
    assert ids(owner="nobody") == []
    assert ids(label="project:x") == ids(label="project=x") == [mine]
    assert ids(label=["project:x", "kind:a=b"]) == [mine]
    assert ids(label=["project:x", "kind:other"]) == []


def test_a_cancelled_job_is_final_and_cancelling_again_is_harmless(member: httpx.Client) -> None:
    job = submit(member)
    first = member.post(f"/v1/jobs/{job['id']}/cancel", json={"keep": "best"})
    again = member.post(f"/v1/jobs/{job['id']}/cancel")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["status"] == "cancelled"
    assert first.json()["terminal"] is True
    assert again.json() == first.json()
    refused = member.post(f"/v1/jobs/{job['id']}/pause")
    assert refused.status_code == 409
    assert refused.json()["code"] == "invalid_transition"
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["detail"].endswith("is cancelled: it cannot be paused, as one that is queued or running can")


def test_cancelling_a_running_job_asks_its_worker(member: httpx.Client, database: Database) -> None:
    job = submit(member)
    fence = run_one(database)
    answers = [member.post(f"/v1/jobs/{job['id']}/cancel", json={"keep": "none"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["stop_requested"] == "cancel"
    assert answers[1].json()["version"] == answers[0].json()["version"]
    with database.transaction() as session:
        renewal = jobs.renew_lease(session, fence, lease_seconds=60)
    assert renewal == jobs.Renewal(stop_requested="cancel", stop_keep="none")


def test_pausing_a_running_job_asks_its_worker(member: httpx.Client, database: Database) -> None:
    job = submit(member)
    run_one(database)
    answer = member.post(f"/v1/jobs/{job['id']}/pause")
    assert (answer.status_code, answer.json()["stop_requested"]) == (202, "pause")


def test_progress_says_what_a_phase_does_that_does_not_count_steps(member: httpx.Client, database: Database) -> None:
    job = submit(member)
    fence = run_one(database)
    with database.transaction() as session:
        progress = {"phase": "cache", "step": 0, "total_steps": None, "message": "computing the teacher's outputs"}
        jobs.record_progress(session, fence, progress)
    told = member.get(f"/v1/jobs/{job['id']}").json()["progress"]
    assert told == {
        "phase": "cache",
        "step": 0,
        "total_steps": None,
        "epoch": None,
        "fraction": None,
        "samples_per_second": None,
        "eta_seconds": None,
        "message": "computing the teacher's outputs",
    }


def test_a_queued_job_is_paused_and_resumed(member: httpx.Client) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    assert member.post(f"{path}/pause").json()["status"] == "paused"
    assert member.post(f"{path}/pause").status_code == 200
    assert member.post(f"{path}/resume").json()["status"] == "queued"
    assert member.post(f"{path}/resume").status_code == 200


def test_name_labels_and_priority_can_be_changed_under_if_match(member: httpx.Client) -> None:
    job = submit(member)
    path = f"/v1/jobs/{job['id']}"
    changed = member.patch(path, json={"name": "new", "priority": "low"}, headers={"If-Match": f'"{job["version"]}"'})
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["priority"], changed.json()["labels"]) == ("new", "low", {})
    assert changed.json()["spec"]["priority"] == "low"
    weak = member.patch(path, json={"name": "newer"}, headers={"If-Match": f'W/"{changed.json()["version"]}"'})
    late = member.patch(path, json={"name": "newer"}, headers={"If-Match": f'"{job["version"]}"'})
    assert (weak.status_code, late.status_code) == (412, 412)
    assert member.get(path).json()["name"] == "new"


@pytest.mark.parametrize("body", [{"name": None}, {"status": "succeeded"}, {"priority": "highest"}, {"labels": {"": "x"}}, []])
def test_a_change_of_anything_else_is_refused(member: httpx.Client, body: object) -> None:
    job = submit(member)
    assert member.patch(f"/v1/jobs/{job['id']}", json=body).status_code == 422
    assert member.get(f"/v1/jobs/{job['id']}").json() == job


def test_high_priority_is_the_admins_to_give(member: httpx.Client, admin: httpx.Client) -> None:
    assert member.post("/v1/jobs", json=spec(priority="high")).status_code == 403
    job = submit(member)
    assert member.patch(f"/v1/jobs/{job['id']}", json={"priority": "high"}).status_code == 403
    assert admin.patch(f"/v1/jobs/{job['id']}", json={"priority": "high"}).json()["priority"] == "high"
    assert member.patch(f"/v1/jobs/{job['id']}", json={"name": "x", "priority": "high"}).status_code == 200


def test_only_a_finished_job_can_be_deleted_and_its_student_with_it(member: httpx.Client, database: Database) -> None:
    path = f"/v1/jobs/{submit(member)['id']}"
    refused = member.delete(path)
    assert refused.status_code == 409
    assert refused.headers["x-should-retry"] == "false"
    fence = run_one(database)
    with database.transaction() as session:
        jobs.fail(session, fence, JobFailure(code="non_finite_loss", message="the loss is NaN at step 3", hint="lower it"))
    assert member.get(path).json()["error"]["code"] == "non_finite_loss"
    assert member.delete(path).status_code == 204
    assert member.get(path).status_code == 404
    assert member.delete(path).status_code == 404


def test_explain_tells_what_a_job_waits_for(member: httpx.Client, database: Database) -> None:
    first, second = submit(member), submit(member)
    gpu = submit(member, resources={"pool": "default", "gpus": 1, "min_gpu_memory_gib": 40.0})
    run_one(database)
    told = member.get(f"/v1/jobs/{second['id']}/explain").json()
    assert (told["position"], told["ahead"], told["live_workers"], told["suitable_workers"]) == (1, 0, 1, 1)
    assert told["waiting_for"].startswith("a CPU slot: host here has 0 free until about ")
    assert (told["blocker"]["cause"], told["blocker"]["job_ids"]) == ("devices", [first["id"]])
    assert (told["needs"], told["fair_share"]["used"]) == ("a CPU slot", pytest.approx(60, rel=0.01))
    told = member.get(f"/v1/jobs/{gpu['id']}/explain").json()
    assert told["waiting_for"] == "a GPU of 40 GiB or more: no worker of pool 'default' has one"
    assert told["suitable_workers"] == 0
    assert member.get(f"/v1/jobs/{first['id']}/explain").json()["position"] is None


def test_the_queue_lists_waiting_jobs_in_starting_order_and_running_ones(
    member: httpx.Client, admin: httpx.Client, database: Database
) -> None:
    running = submit(member)
    run_one(database)
    low = submit(member, priority="low")
    normal = submit(member)
    high = submit(admin, priority="high")
    submit(member, resources={"pool": "other"})
    queue = member.get("/v1/queue", params={"pool": "default"}).json()
    assert [(job["id"], job["position"]) for job in queue["waiting"]] == [(high["id"], 1), (normal["id"], 2), (low["id"], 3)]
    assert [job["id"] for job in queue["running"]] == [running["id"]]
    workers = member.get("/v1/workers").json()["data"]
    assert [(worker["alive"], worker["job_ids"]) for worker in workers] == [(True, [running["id"]])]
    assert workers[0]["devices"][0]["job_ids"] == [running["id"]]
