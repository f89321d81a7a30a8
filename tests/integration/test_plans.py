"""What the service does all day long reaches its rows by indexes, however many jobs there are."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.large_queue import GPUS, MEMORY_GIB, SPEC, Size, job_id, load, worker_id
from benchmarks.plans import indexes, list_jobs, plans, poll, read_whole
from service import jobs, preflight, queries, scheduling, workers
from service.database import Database
from service.jobs import Fence
from service.queries import JobFilter
from service.scheduling import Device, Offer, claim
from service.scheduling.queue_status_cache import QueueStatusCache
from service.scheduling.snapshot import take_snapshot
from service.spec import parse_spec
from service.tables import Job
from tests.integration.conftest import empty

SIZE = Size(jobs=30_000, queued=3_000, users=20, workers=100)
LEASE_SECONDS = 3600.0
CACHE = QueueStatusCache(lease_seconds=LEASE_SECONDS, max_age_seconds=3600.0)
MIDDLE = job_id(SIZE.jobs // 2)
FREE = tuple(Device(f"cuda:{number}", MEMORY_GIB) for number in range(GPUS))


@pytest.fixture(scope="module")
def large(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, answer_seconds=60)) as opened:
        empty(opened)
        load(opened, SIZE)
        with opened.transaction() as session:  # so that none of the lists has to compute it
            CACHE.of(session, "default")
        yield opened


def page(after: str | None = None, **wanted: object) -> Callable[[Session], object]:
    filter_ = JobFilter(**wanted)  # type: ignore[arg-type]
    return lambda session: list_jobs(session, filter_, after=after)


WORK: dict[str, tuple[Callable[[Session], object], set[str]]] = {
    "claim": (
        lambda session: claim(session, Offer(worker_id(1), "default", FREE), lease_seconds=LEASE_SECONDS),
        {"ix_jobs_queue", "ix_jobs_reserved", "pk_jobs", "pk_workers"},
    ),
    "claim of a check": (
        lambda session: preflight.claim_check(session, worker_id(1), "default", lease_seconds=LEASE_SECONDS),
        {"ix_jobs_checking"},
    ),
    "snapshot": (
        lambda session: take_snapshot(session, "default", lease_seconds=LEASE_SECONDS, depth=5).find_hosts(),
        {"ix_jobs_queue", "ix_jobs_running"},
    ),
    "poll": (lambda session: poll(session, job_id(1), MIDDLE), {"pk_jobs"}),
    "list": (page(), {"pk_jobs"}),
    "list, deep": (page(MIDDLE), {"pk_jobs"}),
    "list of a status": (page(MIDDLE, statuses=("failed",)), {"ix_jobs_status"}),
    "list of two statuses": (page(MIDDLE, statuses=("failed", "cancelled")), {"ix_jobs_status"}),
    "list of an owner": (page(MIDDLE, owner_id="user_7"), {"ix_jobs_owner"}),
    "list of an owner's queued": (page(owner_id="user_7", statuses=("queued",)), {"ix_jobs_owner_status"}),
    "list of a rare label": (page(labels=(("run", "77"),)), {"ix_job_labels_found"}),
    "list of a common label": (page(MIDDLE, labels=(("project", "p7"),)), {"ix_job_labels_found"}),
    "list of two labels": (page(labels=(("project", "p7"), ("run", "57"))), {"ix_job_labels_found"}),
    "list of a label's failed": (page(labels=(("project", "p7"),), statuses=("failed",)), {"ix_job_labels_found"}),
    "a job": (lambda session: queries.job_row(session, MIDDLE, CACHE), {"pk_jobs"}),
    "sweep": (
        lambda session: scheduling.sweep(session, lease_seconds=LEASE_SECONDS),
        {"ix_jobs_lease", "ix_jobs_promotion", "ix_jobs_reserved"},
    ),
    "sweep's urgent jobs": (scheduling.pools_with_urgent_jobs, {"ix_jobs_high"}),
    "sweep's spent checkpoints": (jobs.spent_checkpoints, {"ix_artifacts_spent"}),
    "sweep's untidied jobs": (lambda session: jobs.untidied(session, lease_seconds=LEASE_SECONDS), {"ix_jobs_untidied"}),
    "sweep's wake-ups": (lambda session: scheduling.wakes_due(session, lease_seconds=LEASE_SECONDS), {"ix_jobs_queue"}),
    "submission": (
        lambda session: jobs.submit(session, owner_id="user_1", spec=parse_spec(SPEC), preflight=True),
        set(),
    ),
    "heartbeat of a job": (
        lambda session: jobs.renew_lease(session, Fence(job_id(1), 1), lease_seconds=LEASE_SECONDS),
        {"pk_jobs"},
    ),
    "heartbeat of a worker": (lambda session: workers.beat(session, worker_id(1), ending=False), {"pk_workers"}),
}


@pytest.mark.parametrize("name", WORK)
def test_it_reads_the_jobs_by_an_index(large: Database, name: str) -> None:
    work, needed = WORK[name]
    found = plans(large, work)
    assert found or name == "submission"
    assert not {"jobs", "job_labels", "artifacts"} & set(read_whole(found)), "\n\n".join(found)
    assert needed <= set(indexes(found)), "\n\n".join(found)


def test_a_plan_that_reads_the_whole_table_is_seen(large: Database) -> None:
    found = plans(large, lambda session: session.scalars(select(Job.id).where(Job.name == "job 7")).all())
    assert read_whole(found) == ["jobs"]
