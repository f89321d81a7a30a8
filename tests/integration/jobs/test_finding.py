"""Lists of jobs by any filter, and the checkpoints that nobody resumes from, as the sweep finds them."""

from itertools import product

import pytest

from service import jobs, read_statements
from service.errors import JobFailure
from service.jobs import Fence
from service.lifecycle import Outcome, Status
from service.queries import JobFilter
from service.tables import Artifact, JobLabel
from tests.integration.jobs.conftest import FAILURE, Team, Write, checkpoint, crash, fail, lose, stop_for, succeed

OWNERS = (None, "user_ana", "user_ben", "user_nobody")
STATUSES = ((), ("paused",), ("queued", "paused"), ("queued", "queued"), ("failed", "cancelled"))
LABELS = ((), (("project", "x"),), (("project", "x"), ("run", "1")), (("run", "x"),))


def listed(team: Team, wanted: JobFilter, *, after: str | None = None, limit: int = 50) -> tuple[list[str], bool]:
    statement = read_statements.page(wanted, after=after, limit=limit + 1, known_versions={})
    ids = [row.id for row in team.do(lambda session: session.connection().exec_driver_sql(*statement).all())]
    return ids[:limit], len(ids) > limit


def test_every_filter_finds_what_it_says_newest_first_page_by_page(team: Team) -> None:
    made = []
    for number in range(16):
        labels = {"project": "xy"[number // 2 % 2], "run": str(number // 4 % 2)}
        job_id = team.submit(owner=("ana", "ben")[number % 2], labels=labels)
        if number >= 8:
            team.do(jobs.request_pause, job_id)
        made.append(team.job(job_id))
    for owner_id, statuses, labels_wanted in product(OWNERS, STATUSES, LABELS):
        expected = [
            job.id
            for job in reversed(made)
            if owner_id in (None, job.owner_id)
            and (not statuses or job.status in statuses)
            and all(job.labels.get(key) == value for key, value in labels_wanted)
        ]
        wanted = JobFilter(statuses=statuses, owner_id=owner_id, labels=labels_wanted)
        assert listed(team, wanted) == (expected, False), wanted
        first, more = listed(team, wanted, limit=2)
        assert (first, more) == (expected[:2], len(expected) > 2)
        if more:
            assert listed(team, wanted, after=first[-1]) == (expected[2:], False), wanted


def test_a_job_is_found_by_the_labels_that_it_has_now(team: Team) -> None:
    job_id = team.submit(labels={"project": "x", "run": "1"})
    team.do(lambda session: jobs.edit(session, job_id, labels={"project": "y"}))
    assert listed(team, JobFilter(labels=(("project", "y"),))) == ([job_id], False)
    assert listed(team, JobFilter(labels=(("project", "x"),))) == ([], False)
    assert listed(team, JobFilter(labels=(("run", "1"),))) == ([], False)
    team.do(lambda session: jobs.edit(session, job_id, labels={}))
    assert listed(team, JobFilter(labels=(("project", "y"),))) == ([], False)


def test_the_labels_of_a_deleted_job_are_gone(team: Team) -> None:
    fence = team.running(labels={"project": "x"})
    team.do(succeed, fence)
    team.do(jobs.remove, fence.job_id)
    assert team.do(lambda session: session.get(JobLabel, (fence.job_id, "project"))) is None


def out_of(code: str) -> Write:
    failure = JobFailure(code=code, message="it ended", hint="look")
    return lambda session, fence: jobs.fail(session, fence, failure)


def last_crash(session: object, fence: Fence) -> Outcome:
    job = jobs.get(session, fence.job_id)  # type: ignore[arg-type]
    job.crashes = job.max_attempts - 1
    return jobs.crash(session, fence, FAILURE)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [succeed, fail, stop_for("cancel"), last_crash, out_of("nan_loss")])
def test_the_checkpoint_of_a_job_that_is_over_is_spent(team: Team, end: Write) -> None:
    fence = team.running()
    team.do(checkpoint, fence)
    assert team.do(jobs.spent_checkpoints) == {}
    team.do(end, fence)
    spent = team.do(jobs.spent_checkpoints)
    assert spent == {fence.job_id: "jobs/x/checkpoint.safetensors"}
    team.do(jobs.forget_checkpoints, spent)
    assert team.do(jobs.spent_checkpoints) == {}
    assert team.do(lambda session: session.get(Artifact, (fence.job_id, "checkpoint.safetensors"))) is None


@pytest.mark.parametrize(
    "end", [crash, stop_for("pause"), stop_for("drain"), out_of("time_limit"), out_of("artifacts_unavailable")]
)
def test_a_checkpoint_that_may_be_resumed_from_stays(team: Team, end: Write) -> None:
    fence = team.running()
    team.do(checkpoint, fence)
    team.do(end, fence)
    assert team.do(jobs.spent_checkpoints) == {}
    kept = team.do(lambda session: session.get(Artifact, (fence.job_id, "checkpoint.safetensors")))
    assert kept is not None
    assert kept.kind == "checkpoint"


def test_a_paused_job_that_is_cancelled_spends_its_checkpoint(team: Team) -> None:
    fence = team.running()
    team.do(checkpoint, fence)
    team.do(stop_for("pause"), fence)
    job, _ = team.do(lambda session: jobs.request_cancel(session, fence.job_id, keep="none"))
    assert job.status == Status.CANCELLED
    assert list(team.do(jobs.spent_checkpoints)) == [fence.job_id]


def test_what_lost_attempts_left_of_a_job_that_is_over_is_found_once(team: Team) -> None:
    fence = team.running()
    team.do(checkpoint, fence)
    team.do(lose, fence)
    team.do(lambda session: succeed(session, team.run()))
    assert team.do(lambda session: jobs.untidied(session, lease_seconds=60)) == [], "a worker may not know yet that it is over"
    assert team.do(lambda session: jobs.untidied(session, lease_seconds=-1)) == [fence.job_id]
    assert team.do(jobs.named_files, fence.job_id) == {"jobs/x/checkpoint.safetensors", "jobs/x/report.json"}
    team.do(jobs.note_tidied, fence.job_id)
    assert team.do(lambda session: jobs.untidied(session, lease_seconds=-1)) == []
