"""What a user sees of a job that is checked: why it waits, and what came of it."""

import httpx
import pytest
from sqlalchemy import update

from service import preflight
from service.database import Database
from service.preflight import CheckFence
from service.settings import Settings
from service.spec.estimate import Estimate
from service.spec.warning_message import WarningMessage
from service.tables import Worker
from tests.integration.api.conftest import submit
from tests.integration.jobs.conftest import FAILURE, Team


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"preflight": True})


def take(database: Database) -> CheckFence:
    with database.transaction() as session:
        check = preflight.claim_check(session, "worker_1", "default", lease_seconds=180)
    assert check is not None
    return check.fence


def test_explain_tells_that_no_worker_is_there_to_check_a_job(member: httpx.Client, database: Database) -> None:
    job = submit(member)
    assert job["status"] == "checking"

    def waits_for() -> str:
        return str(member.get(f"/v1/jobs/{job['id']}/explain").json()["waiting_for"])

    assert "pool 'default' has none that takes jobs: start one with `stillhouse worker --pool default`" in waits_for()
    with database.transaction() as session:
        Team.add_worker(session, "worker_1")
    assert waits_for() == "its check: one step on a few rows, by a worker of its pool"
    check = take(database)
    assert waits_for() == "the end of its check: one step on a few rows, which a worker takes now"
    with database.transaction() as session:
        preflight.give_up_check(session, check, "its worker drains")
    with database.transaction() as session:
        session.execute(update(Worker).values(draining=True))
    assert "none that takes jobs" in waits_for()


def test_a_job_tells_what_its_check_found(member: httpx.Client, database: Database) -> None:
    passed, refused, again = (submit(member)["id"] for _ in range(3))
    found = Estimate(
        parameters={"student": 7},
        flops={"student": 900},
        memory_gib=None,
        memory_by_training_gib={},
        steps={"student": 20},
        num_samples=1259,
        notes=["The teacher was not tried."],
        warnings=[WarningMessage(code="rows_in_train", message="2 rows")],
        seconds=0.5,
    ).model_dump()
    with database.transaction() as session:
        preflight.pass_check(session, CheckFence(passed, take(database).check), found, memory_seconds=60)
    with database.transaction() as session:
        preflight.refuse_check(session, take(database), FAILURE)
    with database.transaction() as session:
        preflight.give_up_check(session, take(database), "its worker drains")
    job = member.get(f"/v1/jobs/{passed}").json()
    assert (job["status"], job["estimate"]) == ("queued", found)
    assert job["warnings"][-1] == {"code": "rows_in_train", "message": "2 rows"}
    events = member.get(f"/v1/jobs/{passed}/events").json()["data"]
    assert [event["data"] for event in events if event["message"] == "2 rows"] == [{"code": "rows_in_train"}]
    job = member.get(f"/v1/jobs/{refused}").json()
    assert (job["status"], job["error"]["hint"], job["attempt"]) == ("failed", FAILURE.hint, 0)
    job = member.get(f"/v1/jobs/{again}").json()
    assert (job["status"], job["status_reason"]) == ("checking", "waits for its check: its worker drains")
