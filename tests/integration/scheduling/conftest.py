"""A cluster of its own for each test; at the end of each test, every explanation of a waiting job has to be right."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from service import scheduling
from service.database import Database
from service.embedded.servers import Valkey
from service.jobs import Fence
from service.preflight import CheckFence
from service.tables import Job
from tests.integration.conftest import empty
from tests.integration.jobs.conftest import Team
from tests.integration.scheduling.cluster import Cluster


@pytest.fixture
def cluster(database_url: str) -> Iterator[Cluster]:
    made = Cluster(database_url)
    with closing(made.database):
        empty(made.database)
        yield made
        made.check()


@pytest.fixture
def team(database: Database) -> Team:
    return Team(database)


@pytest.fixture
def wakes(valkey_server: Valkey) -> Iterator[redis.Redis]:
    """A Redis without wake-ups."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        yield client


def sweep(session: Session) -> bool:
    return scheduling.sweep(session, lease_seconds=45)


def lose(team: Team, *fences: Fence | CheckFence) -> None:
    """Expires the leases, as if their worker had been silent for longer."""
    ids = [fence.job_id for fence in fences]
    statement = update(Job).where(Job.id.in_(ids)).values(lease_expires_at=text("now() - interval '1 microsecond'"))
    team.do(lambda session: session.execute(statement))
