"""The heartbeat of a job outlives whatever keeps it from renewing the lease, until the time for that is up."""

import threading

import pytest
from sqlalchemy.orm import Session

from service.database import Database
from service.jobs import Renewal
from worker.host.lease import Lease


@pytest.mark.parametrize("error", [ValueError("no number"), RuntimeError("no thread is to be had")])
def test_a_renewal_that_fails_by_itself_is_repeated(database: Database, error: Exception) -> None:
    renewed = threading.Event()
    errors = [error]

    def renew(_: Session) -> Renewal:
        if errors:
            raise errors.pop()
        renewed.set()
        return Renewal("cancel", "none")

    with Lease(database, "job_1", renew, heartbeat_seconds=0.01, lease_seconds=60, outage_seconds=60) as lease:
        assert renewed.wait(60)
        assert not lease.lost
    assert lease.renewal == Renewal("cancel", "none")


def test_one_that_always_fails_is_lost_once_its_time_is_up(database: Database) -> None:
    lost = threading.Event()

    def renew(_: Session) -> None:
        raise ValueError("no number")

    timing = {"heartbeat_seconds": 0.01, "lease_seconds": 0.01, "outage_seconds": 0.0}
    with Lease(database, "job_1", renew, **timing, on_loss=lost.set) as lease:
        assert lost.wait(60)
    assert lease.lost
    assert not lease.confirmed
