"""A Hub that is away is waited for under the lease, and not for ever: others may have use for the devices."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from service.database import Database
from service.jobs import Renewal
from service.store import Store
from worker.host import access
from worker.host.access import GaveUpWaiting, LeasedAccess
from worker.host.lease import Lease
from worker.sources.errors import HubAway, SourceRefused

AWAY = HubAway("the Hub does not answer", "Wait.")


@pytest.fixture
def lease(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    monkeypatch.setattr(access, "_RETRY_SECONDS", 0.01)

    def renew(_: Session) -> Renewal:
        return Renewal(None, None)

    with Lease(database, "job_1", renew, heartbeat_seconds=60, lease_seconds=600, outage_seconds=60) as held:
        yield held


@pytest.fixture
def hub_access(lease: Lease, database: Database, tmp_path: Path) -> LeasedAccess:
    store = Store(f"file://{tmp_path}")
    return LeasedAccess(
        "job_1", database=database, store=store, lease=lease, leaving=lambda: False, grace_seconds=0.05, hub_seconds=0.1
    )


def test_what_the_hub_gives_in_the_end_is_had_and_what_it_refuses_is_not_asked_for_again(hub_access: LeasedAccess) -> None:
    errors: list[Exception] = [AWAY, AWAY, SourceRefused("it is gated", "Ask for it."), AWAY]

    def fetch() -> str:
        if errors:
            raise errors.pop(0)
        return "fetched"

    with pytest.raises(SourceRefused):
        hub_access.in_hub(fetch)
    assert len(errors) == 1
    assert hub_access.in_hub(fetch) == "fetched"


def test_a_hub_that_stays_away_is_given_up(hub_access: LeasedAccess, lease: Lease) -> None:
    def fetch() -> None:
        raise AWAY

    lease.renewal = Renewal("pause", None)
    with pytest.raises(GaveUpWaiting, match="the Hub"):
        hub_access.in_hub(fetch)
    lease.renewal = Renewal(None, None)
    with pytest.raises(HubAway):
        hub_access.in_hub(fetch)
