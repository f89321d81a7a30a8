"""What is recorded stands once, also where nobody knows whether the first try was committed."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session

from service import jobs
from service.database import Database
from service.scheduling import Claim
from service.store import MARKER, Store
from tests.integration.jobs.conftest import Team, crash, succeed
from worker.host.access import LeasedAccess
from worker.host.lease import Lease, LeaseLost
from worker.host.recorder import Recorder
from worker.protocol import CHECKPOINT_FILE, CheckpointWritten

T = TypeVar("T")


class Unsure(LeasedAccess):
    """The connection is lost at each first commit, which has happened."""

    def in_database(self, work: Callable[[Session], T]) -> T:
        super().in_database(work)
        return super().in_database(work)


def test_a_checkpoint_that_is_recorded_twice_leaves_no_other_in_the_store(
    database: Database, store: Store, tmp_path: Path
) -> None:
    team = Team(database)
    fence = team.running()
    claim = Claim(fence, team.job(fence.job_id), ("cpu:0",))

    def renew(session: Session) -> jobs.Renewal | None:
        return jobs.renew_lease(session, fence, lease_seconds=60)

    folder = tmp_path / "attempt"
    folder.mkdir()
    with Lease(database, fence.job_id, renew, heartbeat_seconds=1, lease_seconds=60, outage_seconds=60) as lease:
        access = Unsure(
            fence.job_id, database=database, store=store, lease=lease, leaving=lambda: False, grace_seconds=60, hub_seconds=1
        )
        recorder = Recorder(claim, folder, access)
        for step in (1, 2, 3):
            (folder / CHECKPOINT_FILE).write_text(f"the state after step {step}")
            recorder.take(CheckpointWritten(phase="student", step=step))
            recorder.log.note(f"a line of step {step}")
            recorder.write()
        recorder.close()
    held = [path for path in Path(store.url.removeprefix("file://")).rglob("*") if path.is_file() and path.name != MARKER]
    assert [path.read_text() for path in held] == ["the state after step 3"]
    assert team.types(fence.job_id).count("checkpoint") == 3
    assert team.do(jobs.log_text, fence.job_id) == "".join(f"[supervisor] a line of step {step}\n" for step in (1, 2, 3))


class Ended(LeasedAccess):
    """The connection is lost at the commit that ends the attempt, which has happened; the lease with it, before another try."""

    def in_database(self, work: Callable[[Session], T]) -> T:
        super().in_database(work)
        raise LeaseLost


@pytest.mark.parametrize("was_ended_by_another", [False, True])
def test_a_lease_that_ends_with_the_attempts_own_end_is_not_lost(
    database: Database, store: Store, was_ended_by_another: bool
) -> None:
    team = Team(database)
    fence = team.running()

    def renew(session: Session) -> jobs.Renewal | None:
        return jobs.renew_lease(session, fence, lease_seconds=60)

    with Lease(database, fence.job_id, renew, heartbeat_seconds=60, lease_seconds=60, outage_seconds=60) as lease:
        access = Ended(
            fence.job_id, database=database, store=store, lease=lease, leaving=lambda: False, grace_seconds=60, hub_seconds=1
        )
        if was_ended_by_another:
            team.do(crash, fence)
            with pytest.raises(LeaseLost):
                access.write(fence, lambda session: succeed(session, fence))
        else:
            access.write(fence, lambda session: succeed(session, fence))
            assert team.status(fence.job_id) == "succeeded"
