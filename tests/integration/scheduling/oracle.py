"""Checks explanations of the queue by trial: real claims, and what would happen without the thing that blocks a job.

Every trial is rolled back. Hosts, devices and their holders are read from the rows, not by the code under test.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from service import clock, jobs, workers
from service.scheduling.blockers import Blocker
from service.scheduling.explain import QueueStatus, explain
from service.scheduling.snapshot import take_snapshot
from service.tables import Job, User, Worker

if TYPE_CHECKING:
    from tests.integration.scheduling.cluster import Cluster, Machine

LEASE_SECONDS = 45.0
_MOST_TRIALS = 15
"""Jobs of a pool that are tried, at most: the first ones and the last three."""


def check(cluster: "Cluster") -> None:
    """Checks every explanation of every pool."""
    for pool in {machine.pool for machine in cluster.machines.values()} | set(cluster.do(_pools)):
        queue_status = cluster.queue_status(pool)
        assert set(queue_status.places) == set(cluster.queued(pool))
        assert [place.position for place in queue_status.places.values()] == list(range(1, len(queue_status.places) + 1))
        _check_starts(cluster, queue_status)
        with _trial(cluster) as session:
            told = {job_id: place.blocker for job_id, place in queue_status.places.items()}
            _start_all(session, cluster, pool, told)
            others = {job_id: blocker for job_id, blocker in told.items() if blocker.reason != "starting"}
            rows = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(others)))}
            for job_id, blocker in others.items():
                _check_facts(session, rows[job_id], blocker, queue_status)
        tried = list(others.items())
        for job_id, _ in tried if len(tried) <= _MOST_TRIALS else [*tried[: _MOST_TRIALS - 3], *tried[-3:]]:
            _check_by_trial(cluster, pool, job_id, told)


def _check_starts(cluster: "Cluster", queue_status: QueueStatus) -> None:
    for place in queue_status.places.values():
        if place.start is not None:
            assert cluster.now <= place.start.p50 <= place.start.p90
            if place.blocker.reason == "starting":
                assert place.start.p90 == cluster.now
        assert place.blocker.reason != "starting" or place.start is not None, "it starts now, whatever is known of others"


def _check_facts(session: Session, job: Job, blocker: Blocker, queue_status: QueueStatus) -> None:
    """Compares a blocker with the rows, after every job that can start has started."""
    hosts = _alive(session, job.pool)
    able = [worker for worker in hosts if len(_suitable(worker, job)) >= _count(job)]
    serving = [worker for worker in able if not worker.draining]
    roomy = [worker for worker in serving if len(_free(session, worker, job)) >= _count(job)]
    owner = session.get_one(User, job.owner_id)
    query = select(func.count()).select_from(Job).where(Job.owner_id == owner.id, Job.status == "running")
    running = session.scalar(query) or 0
    if not hosts:
        assert blocker.reason == "no_worker"
    elif not able:
        assert blocker.reason == "no_suitable_worker"
    elif not serving:
        assert blocker.reason == "draining"
    elif owner.max_running_jobs is not None and running >= owner.max_running_jobs:
        assert blocker.reason == "user_limit"
    elif roomy:
        assert blocker.reason == "kept_host", f"{job.id} would fit on {roomy[0].id}"
        assert blocker.worker_id in {worker.id for worker in roomy}
    elif blocker.reason == "kept_host":
        keeper = session.get_one(Job, blocker.job_ids[0])
        assert keeper.reserved_worker_id == blocker.worker_id, "what comes free there is the other's"
        assert not {worker.id for worker in serving} - {blocker.worker_id} - set(_kept(session, job.pool))
    else:
        assert blocker.reason in {"devices", "preempting", "jobs_ahead"}
    if blocker.reason in {"devices", "preempting"}:
        assert blocker.worker_id in {worker.id for worker in serving}
        worker = session.get_one(Worker, blocker.worker_id)
        assert f"host {worker.host}" in blocker.message
        holders = {job_id for job_id, names in _held(session, worker).items() if names & _suitable(worker, job)}
        assert holders >= set(blocker.job_ids), "those that hold what it needs"
        if blocker.reason == "devices":
            assert holders == set(blocker.job_ids)
            assert f"has {len(_free(session, worker, job))} free" in blocker.message
        else:
            stopping = select(Job.id).where(Job.id.in_(holders), Job.stop_requested.is_not(None))
            assert set(session.scalars(stopping)) == set(blocker.job_ids)
    if blocker.reason == "jobs_ahead":
        order = list(queue_status.places)
        for ahead in blocker.job_ids:
            assert order.index(ahead) < order.index(job.id)
            assert queue_status.places[ahead].blocker.reason in {"devices", "preempting", "jobs_ahead", "kept_host"}


def _check_by_trial(cluster: "Cluster", pool: str, job_id: str, told: dict[str, Blocker]) -> None:
    """Removes what blocks a job: the job starts, or something else blocks it."""
    blocker = told[job_id]
    ways: dict[str, Callable[[Session], object]] = {
        "no_worker": lambda session: workers.register(
            session, "another", host="another", pid=1, pool=pool, devices=[{"name": f"cpu:{n}", "kind": "cpu"} for n in range(9)]
        ),
        "draining": lambda session: session.execute(update(Worker).values(draining=False)),
        "user_limit": lambda session: session.execute(update(User).values(max_running_jobs=None)),
        "kept_host": lambda session: jobs.request_cancel(session, blocker.job_ids[0], keep="best"),
        "jobs_ahead": lambda session: [jobs.request_cancel(session, ahead, keep="best") for ahead in blocker.job_ids],
        "devices": lambda session: _vanish(session, blocker.job_ids),
        "preempting": lambda session: _vanish(session, blocker.job_ids),
    }
    if blocker.reason not in ways:
        return
    with _trial(cluster) as session:
        # Jobs that can start do so first, or they could take the devices that come free.
        _start_all(session, cluster, pool, told)
        if blocker.reason in {"devices", "preempting"} and session.scalar(_limited_among(blocker.job_ids)):
            return  # their owners' other jobs might start instead of these
        ways[blocker.reason](session)
        session.flush()
        now = explain(session, pool, lease_seconds=LEASE_SECONDS).places[job_id].blocker
        if blocker.reason in {"devices", "preempting"}:
            assert (now.reason, now.worker_id) == ("starting", blocker.worker_id), f"{blocker} → {now}"
        elif blocker.reason == "kept_host":
            assert not {*now.job_ids} & {*blocker.job_ids}, f"{blocker} → {now}"
        elif blocker.reason == "jobs_ahead" and len(blocker.job_ids) < 10:
            # Others of the same owners may come before it now.
            before = list(told)[: list(told).index(job_id)]
            assert now.reason != "jobs_ahead" or not {*now.job_ids} & {*before}, f"{blocker} → {now}"
        else:
            assert now != blocker


@contextmanager
def _trial(cluster: "Cluster") -> Iterator[Session]:
    with Session(cluster.database.engine, info=clock.info(lambda: cluster.now)) as session, session.begin() as transaction:
        yield session
        transaction.rollback()


def _start_all(session: Session, cluster: "Cluster", pool: str, told: dict[str, Blocker]) -> None:
    """Claims the jobs that are explained as starting, in order and where they should start; then no host may claim more."""
    _, starting = take_snapshot(session, pool, lease_seconds=LEASE_SECONDS).simulate()
    assert {job_id for job_id, blocker in told.items() if blocker.reason == "starting"} == set(starting)
    machines = {machine.id: machine for machine in _copies(cluster, pool)}
    for job_id in starting:
        machine = machines[str(told[job_id].worker_id)]
        found = cluster.claim_in(session, machine)
        assert found is not None, f"{told[job_id]}, and nothing does there"
        assert found.job.id == job_id, f"{told[job_id]}, and {found} does there"
        machine.running[job_id] = (found.fence, found.devices)
    for machine in machines.values():
        found = cluster.claim_in(session, machine)
        assert found is None, f"{found} starts, and it was told that {told[found.job.id]}"


def _copies(cluster: "Cluster", pool: str) -> list["Machine"]:
    return [
        replace(machine, running=dict(machine.running))
        for _, machine in sorted(cluster.machines.items())
        if machine.pool == pool and machine.beats
    ]


def _vanish(session: Session, job_ids: tuple[str, ...]) -> None:
    """Ends jobs without any other change."""
    values = {"status": "paused", "lease_expires_at": None, "stop_requested": None}
    session.execute(update(Job).where(Job.id.in_(job_ids)).values(**values))
    session.expire_all()


def _kept(session: Session, pool: str) -> list[str | None]:
    return list(session.scalars(select(Job.reserved_worker_id).where(Job.status == "queued", Job.pool == pool)))


def _limited_among(job_ids: tuple[str, ...]) -> Select[int]:
    limited = select(func.count()).select_from(Job).join(User, User.id == Job.owner_id)
    return limited.where(Job.id.in_(job_ids), User.max_running_jobs.is_not(None))


def _pools(session: Session) -> list[str]:
    return list(session.scalars(select(Job.pool).where(Job.status == "queued").distinct()))


def _alive(session: Session, pool: str) -> list[Worker]:
    workers_ = session.scalars(select(Worker).where(Worker.pool == pool, Worker.stopped_at.is_(None)))
    return [worker for worker in workers_ if (clock.now(session) - worker.heartbeat_at).total_seconds() < LEASE_SECONDS]


def _count(job: Job) -> int:
    return job.gpus or job.cpu_slots


def _suitable(worker: Worker, job: Job) -> set[str]:
    kind, memory = ("cuda", math.ceil(job.min_gpu_memory_gib or 0.0)) if job.gpus else ("cpu", 0)
    return {d["name"] for d in worker.devices if d["kind"] == kind and math.ceil(d["memory_gib"] or 0.0) >= memory}


def _held(session: Session, worker: Worker) -> dict[str, set[str]]:
    query = select(Job.id, Job.devices).where(Job.status == "running", Job.worker_id == worker.id)
    return {row.id: set(row.devices) for row in session.execute(query)}


def _free(session: Session, worker: Worker, job: Job) -> set[str]:
    return _suitable(worker, job) - {name for names in _held(session, worker).values() for name in names}
