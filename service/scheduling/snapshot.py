"""Reads the snapshot of a pool that the policy decides on: its waiting jobs by flow, its users' shares, its hosts.

Cost: a few index steps for each flow (class, user and resource class) and a row for each host, however many jobs there are.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, text
from sqlalchemy.orm import Session

from service import clock
from service.capacity import whole_gib
from service.database import loose_index_scan
from service.lifecycle import Priority, Status
from service.queue_policy import queue_policy_of
from service.scheduling.hosts import Device, Holder, Host, Need
from service.scheduling.policy import WINDOW, Flow, FlowKey, Reservation, Share, Snapshot, Waiting
from service.tables import Job, Usage, User, Worker
from service.usage import decayed_sql

STOP_SECONDS = 60.0
"""Expected time until a job that is to stop has written its checkpoint."""
_COLUMNS = (
    "id, owner_id, queue_class, priority, shape AS resource_class, queued_at, waiting_since, gpus, cpu_slots, min_gpu_memory_gib,"
    " max_runtime_seconds, run_seconds, reserved_worker_id"
)
_FLOWS = text(f"""
WITH RECURSIVE flows AS (
    (SELECT queue_class, owner_id, shape FROM jobs WHERE status = 'queued' AND pool = :pool
     ORDER BY queue_class, owner_id, shape LIMIT 1)
    UNION ALL
    SELECT following.* FROM flows CROSS JOIN LATERAL (
        SELECT queue_class, owner_id, shape FROM jobs WHERE status = 'queued' AND pool = :pool
        AND (queue_class, owner_id, shape) > (flows.queue_class, flows.owner_id, flows.shape)
        ORDER BY queue_class, owner_id, shape LIMIT 1
    ) AS following
)
SELECT waiting.* FROM flows CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM jobs WHERE status = 'queued' AND pool = :pool
    AND queue_class = flows.queue_class AND owner_id = flows.owner_id AND shape = flows.shape
    ORDER BY priority, queued_at, id LIMIT :depth
) AS waiting
""")  # noqa: S608 - no value is put into the text
"""The first jobs of each flow, by a loose scan of the index: each flow costs one search, however many jobs it has."""
_MORE = text(f"""
SELECT {_COLUMNS} FROM jobs WHERE status = 'queued' AND pool = :pool
AND queue_class = :queue_class AND owner_id = :owner_id AND shape = :resource_class
AND (priority, queued_at, id) > (:priority, :queued_at, :id)
ORDER BY priority, queued_at, id LIMIT :depth
""")  # noqa: S608 - no value is put into the text

_device = lru_cache(maxsize=1024)(Device)
"""Shares equal devices: thousands of hosts have few different ones."""

_QUEUED_POOLS = text(f"""
{loose_index_scan("pool", "status = 'queued'")}
SELECT scan.pool, queued.number FROM scan CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (SELECT 1 FROM jobs WHERE status = 'queued' AND pool = scan.pool LIMIT :most) AS counted
) AS queued
""")  # noqa: S608 - no value is put into the text


def take_snapshot(session: Session, pool: str, *, lease_seconds: float, depth: int = 1, hosts: Sequence[Host] = ()) -> Snapshot:
    """Takes a snapshot of the pool at this moment, with the first ``depth`` jobs of each flow.

    The free devices of ``hosts`` are known to the caller, and take precedence over the database.
    """
    now = clock.now(session)
    flows = _flows(session, pool, depth=depth)
    reservations = _reservations(session, pool, now=now, lease_seconds=lease_seconds)
    owners = {flow.owner_id for flow in flows.values()} | {reservation.job.owner_id for reservation in reservations}
    return Snapshot(
        pool=pool,
        now=now,
        queue_policy=queue_policy_of(session),
        shares=shares(session, owners, now=now),
        flows=flows,
        reservations=reservations,
        find_hosts=_once(partial(_hosts_beside, session, pool, hosts, now=now, lease_seconds=lease_seconds)),
    )


def live_workers(session: Session, *, lease_seconds: float, pool: str | None = None) -> Sequence[Worker]:
    """The workers with a recent heartbeat: the last one is younger than a lease."""
    of_pool = [] if pool is None else [Worker.pool == pool]
    query = select(Worker).where(alive(session, lease_seconds=lease_seconds), *of_pool)
    return session.scalars(query.order_by(Worker.id)).all()


def alive(session: Session, *, lease_seconds: float) -> ColumnElement[bool]:
    """The condition that a worker has a recent heartbeat."""
    oldest = clock.now_sql(session) - clock.seconds_sql(lease_seconds)
    return and_(Worker.stopped_at.is_(None), Worker.heartbeat_at > oldest)


def host_of(worker: Worker) -> Host:
    """A worker as a host, with all devices free."""
    devices = tuple(_device(device["name"], device.get("memory_gib")) for device in worker.devices)
    return Host(worker.id, worker.host, devices, draining=worker.draining)


def hold_running(session: Session, hosts: Iterable[Host], *, now: datetime) -> None:
    """Marks the devices that the running jobs of these hosts hold."""
    by_id = {host.worker_id: host for host in hosts}
    columns = (
        Job.id,
        Job.owner_id,
        Job.worker_id,
        Job.devices,
        Job.priority,
        Job.queue_class,
        Job.started_at,
        Job.expected_end_at,
        Job.max_runtime_seconds,
        Job.run_seconds,
        Job.stop_requested,
    )
    query = select(*columns).where(Job.status == Status.RUNNING, Job.worker_id.in_(by_id))
    for row in session.execute(query):
        holder = _holder(row, now)
        by_id[row.worker_id].held |= dict.fromkeys(row.devices or (), holder)


def hold_known(session: Session, host: Host, *, now: datetime) -> None:
    """Adds the holders of the devices of a host whose free devices are already known, and their expected ends."""
    free = {device.name for device in host.devices if device.name not in host.held}
    hold_running(session, [host], now=now)
    host.held = {name: holder for name, holder in host.held.items() if name not in free}


def shares(session: Session, owner_ids: Iterable[str], *, now: datetime) -> dict[str, Share]:
    """The fair shares of these users."""
    query = (
        select(User.id, User.name, User.share_weight, User.max_running_jobs, decayed_sql(session, now))
        .outerjoin(Usage, Usage.user_id == User.id)
        .where(User.id.in_(set(owner_ids)))
    )
    found = {
        id_: Share(id_, name, weight, used, max_running=max_running)
        for id_, name, weight, max_running, used in session.execute(query)
    }
    limited = [share.owner_id for share in found.values() if share.max_running is not None]
    if limited:
        for owner_id, count in num_running(session, limited).items():
            found[owner_id].running = count
    return found


def num_running(session: Session, owner_ids: Sequence[str]) -> dict[str, int]:
    """Number of running jobs of each of these users, in all pools."""
    query = select(Job.owner_id, func.count()).where(Job.status == Status.RUNNING, Job.owner_id.in_(owner_ids))
    return dict(session.execute(query.group_by(Job.owner_id)).all())


def queued_by_pool(session: Session, *, most: int) -> dict[str, int]:
    """Number of queued jobs by pool, counted up to ``most``."""
    return {row.pool: row.number for row in session.execute(_QUEUED_POOLS, {"most": most})}


def need_of(job: Any) -> Need:
    """The need of a stored job."""
    memory_gib = job.min_gpu_memory_gib
    return Need(job.gpus, job.cpu_slots, None if memory_gib is None else whole_gib(memory_gib))


def waiting_of(row: Any) -> Waiting:
    """A queued job's row as the policy sees it."""
    return Waiting(
        id=row.id,
        owner_id=row.owner_id,
        queue_class=row.queue_class,
        priority=row.priority,
        queued_at=row.queued_at,
        waiting_since=row.waiting_since,
        need=need_of(row),
        resource_class=row.resource_class,
        bound_seconds=max(0.0, row.max_runtime_seconds - row.run_seconds),
        ran_seconds=row.run_seconds,
    )


def _flows(session: Session, pool: str, *, depth: int) -> dict[FlowKey, Flow]:
    flows: dict[FlowKey, Flow] = {}
    for row in session.execute(_FLOWS, {"pool": pool, "depth": depth}):
        job = waiting_of(row)
        key = (row.queue_class, row.owner_id, row.resource_class)
        if key in flows:
            flows[key].add([job])
        else:
            flows[key] = Flow(key, job.need, [job])
    for flow in flows.values():
        if len(flow.jobs) == depth:  # else these are all
            flow.extend = partial(_extend, session, pool)
    return flows


def _extend(session: Session, pool: str, flow: Flow) -> None:
    priority, queued_at, job_id = flow.reached
    queue_class, owner_id, resource_class = flow.key
    values = {"pool": pool, "queue_class": queue_class, "owner_id": owner_id, "resource_class": resource_class, "depth": WINDOW}
    values |= {"priority": priority, "queued_at": queued_at, "id": job_id}
    more = [waiting_of(row) for row in session.execute(_MORE, values)]
    flow.add(more)
    if len(more) < WINDOW:
        flow.extend = lambda flow: None


def _reservations(session: Session, pool: str, *, now: datetime, lease_seconds: float) -> list[Reservation]:
    """The reservations of the pool whose host can still serve them."""
    oldest = now - timedelta(seconds=lease_seconds)
    serves = and_(Worker.stopped_at.is_(None), Worker.heartbeat_at > oldest, Worker.draining.is_(False))
    query = (
        select(Job)
        .join(Worker, Worker.id == Job.reserved_worker_id)
        .where(Job.pool == pool, Job.reserved_worker_id.is_not(None), serves)
        .order_by(Job.id)
    )
    return [Reservation(waiting_of(job), job.reserved_worker_id or "") for job in session.scalars(query)]


def _hosts_beside(session: Session, pool: str, known: Sequence[Host], *, now: datetime, lease_seconds: float) -> list[Host]:
    ids = {host.worker_id for host in known}
    others = [host_of(worker) for worker in live_workers(session, lease_seconds=lease_seconds, pool=pool) if worker.id not in ids]
    hold_running(session, others, now=now)
    for host in known:
        hold_known(session, host, now=now)
    return [*known, *others]


def _holder(row: Any, now: datetime) -> Holder:
    latest = row.started_at + timedelta(seconds=max(0.0, row.max_runtime_seconds - row.run_seconds))
    ends_at = min(latest, row.expected_end_at or latest)
    stopping = row.stop_requested is not None
    return Holder(
        row.id,
        row.owner_id,
        row.started_at,
        min(ends_at, now + timedelta(seconds=STOP_SECONDS)) if stopping else ends_at,
        may_be_preempted=row.priority == Priority.LOW == row.queue_class,
        stopping=stopping,
        measured=row.expected_end_at is not None,
        time_is_up_at=latest,
    )


def _once(find: Callable[[], list[Host]]) -> Callable[[], Sequence[Host]]:
    found: list[list[Host]] = []

    def ask() -> Sequence[Host]:
        if not found:
            found.append(find())
        return found[0]

    return ask
