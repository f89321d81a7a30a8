"""What a job leaves: metrics, log, checkpoints, result; and how all of it is deleted."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service import jobs
from service.errors import Conflict
from service.jobs import Fence
from service.lifecycle import FINAL, Outcome, Status
from service.tables import Artifact, Job, MetricPoint, Model
from tests.integration.api.test_submission_statements import recorded_statements
from tests.integration.jobs.conftest import (
    ALREADY,
    APPLIED,
    LEASE_LOST,
    Team,
    Write,
    cancel,
    checkpoint,
    crash,
    log,
    metrics,
    milestone,
    progress,
    stored,
    succeed,
)


def test_a_point_that_a_resumed_attempt_passes_again_gets_its_new_value(team: Team) -> None:
    fence = team.running()

    def record(*points: tuple[int, float]) -> None:
        outcome = team.do(lambda session: jobs.record_metrics(session, fence, {"loss": points}))
        assert outcome is APPLIED

    record((1, 0.9), (2, 0.8))
    record((2, 0.7), (3, 0.6), (3, 0.5))
    with team.database.transaction() as session:
        found = session.scalars(select(MetricPoint).order_by(MetricPoint.step)).all()
    assert [(point.step, point.value) for point in found] == [(1, 0.9), (2, 0.7), (3, 0.5)]
    event = team.events(fence.job_id)[-1]
    assert (event.type, event.data["points"]["loss"][0]) == ("metrics", [2, 0.7])


@pytest.mark.parametrize("num_points", [1, 1000])
def test_a_write_of_everything_locks_its_job_once_and_takes_as_many_statements_for_any_number_of_points(
    team: Team, num_points: int
) -> None:
    fence = team.running()

    def write(session: Session) -> list[Outcome]:
        return [
            jobs.append_log(session, fence, "a line\n"),
            jobs.record_progress(session, fence, {"phase": "student"}, milestone="step 7", remaining_seconds=60),
            jobs.record_metrics(session, fence, {"loss": [(step, 0.5) for step in range(num_points)]}),
        ]

    with recorded_statements(team.database) as statements:
        assert team.do(write) == [APPLIED] * 3
    assert sum("FOR UPDATE" in statement for statement in statements) == 1
    assert sum(statement.startswith("UPDATE jobs") for statement in statements) == 1
    assert len(statements) == 7, statements
    with team.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(MetricPoint)) == num_points


def test_a_point_is_stored_to_its_last_bit(team: Team) -> None:
    fence = team.running()
    values = [1 / 3, -0.1, 5e-324, 1.7976931348623157e308, 2.0**53 + 2]
    assert team.do(lambda session: jobs.record_metrics(session, fence, {"loss": list(enumerate(values))})) is APPLIED
    with team.database.transaction() as session:
        stored = session.scalars(select(MetricPoint.value).order_by(MetricPoint.step)).all()
    assert [value.hex() for value in stored] == [value.hex() for value in values]


def test_a_write_that_follows_the_attempts_end_in_one_transaction_is_refused(team: Team) -> None:
    fence = team.running()

    def end_and_write(session: Session) -> list[Outcome]:
        return [succeed(session, fence), progress(session, fence), metrics(session, fence)]

    assert team.do(end_and_write) == [APPLIED, LEASE_LOST, LEASE_LOST]


@pytest.mark.parametrize("points", [{}, {"loss": []}])
def test_no_points_are_no_event(team: Team, points: dict[str, list[tuple[int, float]]]) -> None:
    fence = team.running()
    before = team.everything()
    assert team.do(lambda session: jobs.record_metrics(session, fence, points)) is APPLIED
    assert team.everything() == before


def test_a_milestone_is_an_event_and_plain_progress_is_none(team: Team) -> None:
    fence = team.running()
    before = team.types(fence.job_id)
    team.do(progress, fence)
    assert team.types(fence.job_id) == before
    team.do(milestone, fence)
    event = team.events(fence.job_id)[-1]
    assert (event.type, event.message, event.data) == ("progress", "step 7", {"phase": "student", "step": 7})
    assert team.job(fence.job_id).progress == {"phase": "student", "step": 7}


def test_the_log_of_all_attempts_is_one_text(team: Team) -> None:
    fence = team.running()
    for addition in ("first\n", "", "zwé", "ite\n"):
        team.do(lambda session, addition: jobs.append_log(session, fence, addition), addition)
    team.do(crash, fence)
    again = team.run()
    team.do(lambda session: jobs.append_log(session, again, "second attempt\n"))
    assert team.do(jobs.log_text, fence.job_id) == "first\nzwéite\nsecond attempt\n"


def test_a_log_is_kept_up_to_its_limit_and_never_half_a_character(team: Team) -> None:
    fence = team.running()
    many = "é" * (jobs.MAX_LOG_BYTES * 3 // 8)  # two of them are more than the limit
    for addition in ("x", many, many, many):  # and after an odd byte the limit falls inside an é
        assert team.do(lambda session, addition: jobs.append_log(session, fence, addition), addition) is APPLIED
    kept = team.do(jobs.log_text, fence.job_id)
    assert kept == "x" + "é" * (jobs.MAX_LOG_BYTES // 2 - 1)


def test_a_checkpoint_takes_the_place_of_the_last_one(team: Team) -> None:
    fence = team.running()

    def record(path: str, step: int) -> str | None:
        file = stored("checkpoint.safetensors", path=path)
        outcome, replaced = team.do(lambda s: jobs.record_checkpoint(s, fence, file, phase="student", step=step))
        assert outcome is APPLIED
        return replaced

    assert [record("a", 1), record("b", 2), record("b", 3), record("c", 4)] == [None, "a", None, "b"]
    with team.database.transaction() as session:
        (artifact,) = session.scalars(select(Artifact))
    assert (artifact.path, artifact.kind, artifact.attempt) == ("c", "checkpoint", 1)
    event = team.events(fence.job_id)[-1]
    assert (event.type, event.data) == ("checkpoint", {"phase": "student", "step": 4})


def test_a_checkpoint_outlives_its_attempt(team: Team) -> None:
    fence = team.running()
    team.do(checkpoint, fence)
    team.do(crash, fence)
    with team.database.transaction() as session:
        assert session.get(Artifact, (fence.job_id, "checkpoint.safetensors")) is not None


def test_a_success_publishes_files_result_and_student_together(team: Team) -> None:
    fence = team.running()
    team.do(milestone, fence)
    team.do(succeed, fence)
    job = team.job(fence.job_id)
    assert (job.result, job.finished_at is not None, job.error) == ({"accuracy": 0.9}, True, None)
    assert job.progress == {"phase": "student", "step": 7, "fraction": 1.0, "eta_seconds": 0.0}
    with team.database.transaction() as session:
        assert session.scalars(select(Artifact.name)).all() == ["report.json"]
        assert session.scalars(select(Model.job_id)).all() == [fence.job_id]


@pytest.mark.parametrize("status", [status for status in Status if status not in FINAL])
def test_a_job_that_has_not_finished_is_not_deleted(team: Team, status: Status) -> None:
    fence = team.bring_to(status)
    before = team.everything()
    with pytest.raises(Conflict, match=f"is {status}"):
        team.do(jobs.remove, fence.job_id)
    assert team.everything() == before


def test_a_deleted_job_takes_all_that_is_its_own_along(team: Team) -> None:
    untouched = team.everything()
    fence = team.running()
    for write in (milestone, metrics, log, checkpoint, succeed):
        team.do(write, fence)
    assert team.do(jobs.remove, fence.job_id) == f"jobs/{fence.job_id}"
    left = team.everything()
    assert left.pop("usage") != untouched.pop("usage"), "what was used was used"
    assert left.pop("usage_hours") != untouched.pop("usage_hours")
    assert left == untouched


def test_a_job_stays_while_another_needs_it(team: Team) -> None:
    needed = team.bring_to(Status.SUCCEEDED)
    user = team.submit(depends_on=[needed.job_id])
    with pytest.raises(Conflict, match=user):
        team.do(jobs.remove, needed.job_id)
    team.do(cancel, Fence(user, 0))
    team.do(jobs.remove, needed.job_id)
    assert team.status(user) == "cancelled"


@pytest.mark.parametrize("seconds", [3e11, float("inf")])
def test_no_job_is_expected_to_run_for_longer_than_it_may(team: Team, seconds: float) -> None:
    fence = team.running(resources={"max_runtime_seconds": 3600})
    ran = {"run_seconds": 1800, "started_at": Job.started_at - timedelta(seconds=600)}  # in earlier attempts, and in this one
    team.do(lambda session: session.execute(update(Job).where(Job.id == fence.job_id).values(ran)))
    team.do(lambda session: jobs.record_progress(session, fence, {"phase": "student"}, remaining_seconds=seconds))
    job = team.job(fence.job_id)
    assert job.expected_end_at is not None
    assert job.started_at is not None
    assert (job.expected_end_at - job.started_at).total_seconds() == pytest.approx(1800)


def test_a_write_whose_commit_had_no_answer_is_made_once(team: Team) -> None:
    fence = team.running()

    def write(number: int, what: Write) -> Outcome:
        return team.do(lambda session: jobs.write_once(session, fence, number, lambda session: what(session, fence)))

    assert [write(1, log), write(1, log), write(2, metrics), write(2, metrics)] == [APPLIED, ALREADY, APPLIED, ALREADY]
    assert team.do(jobs.log_text, fence.job_id) == "a line\n"
    assert team.types(fence.job_id).count("metrics") == 1
    assert [write(3, crash), write(3, crash), write(4, log)] == [APPLIED, ALREADY, LEASE_LOST]
    assert write(2, metrics) is LEASE_LOST, "the third may have been made without the second"
    assert team.job(fence.job_id).crashes == 1
    again = team.run()
    assert write(3, crash) is LEASE_LOST, "another attempt runs"
    fence = again
    assert write(1, log) is APPLIED


def test_a_student_that_is_not_accepted_is_told_of_in_the_last_event(team: Team) -> None:
    fence = team.running()
    result = {"accepted": False, "not_accepted": ["bytes is 20, and <=10 is required"]}
    assert team.do(lambda session: jobs.succeed(session, fence, result=result, files=[], models=[])) is APPLIED
    last = team.events(fence.job_id)[-1]
    assert last.message == "the student is trained, and not accepted: bytes is 20, and <=10 is required"
    assert last.type == "job.succeeded"
