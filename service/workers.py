"""The row of a worker: registered, renewed by heartbeats, drained by an admin or by its own end.

A drain is a request on the row, which the worker reads with its next heartbeat; claims and the queue's snapshot see it at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.clock import now, now_sql
from service.errors import NotFound
from service.tables import Worker


@dataclass(frozen=True)
class Drain:
    """The drain that a worker is asked for."""

    draining: bool
    finish: bool
    """Whether the jobs on the worker may run to their end."""


def register(session: Session, worker_id: str, *, host: str, pid: int, pool: str, devices: Sequence[dict[str, Any]]) -> Worker:
    """Registers a worker, which takes jobs from now on; each of ``devices`` has a name, a kind and memory_gib.

    Harmless to repeat: nobody may know whether the first time was committed.
    """
    at = now(session)
    worker = Worker(
        id=worker_id,
        host=host,
        pid=pid,
        pool=pool,
        slots=len(devices),
        devices=list(devices),
        draining=False,
        drain_finishes=False,
        started_at=at,
        heartbeat_at=at,
    )
    return session.merge(worker)


def beat(session: Session, worker_id: str, *, ending: bool) -> Drain:
    """Records a heartbeat and returns the drain that was requested.

    ``ending``: a signal ends the worker, and it takes no more jobs.
    """
    values: dict[str, Any] = {"heartbeat_at": now_sql(session)} | ({"draining": True} if ending else {})
    row = session.execute(
        update(Worker).where(Worker.id == worker_id).values(**values).returning(Worker.draining, Worker.drain_finishes)
    ).one_or_none()
    return Drain(False, False) if row is None else Drain(row.draining, row.drain_finishes)


def deregister(session: Session, worker_id: str) -> None:
    """Records that the worker has ended."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(stopped_at=now_sql(session), draining=True))


def drain(session: Session, worker_id: str, *, finish: bool) -> Worker:
    """Requests a drain: the worker takes no more jobs, and those on it are queued again, or with ``finish`` run to their end.

    Raises NotFound.
    """
    worker = _living(session, worker_id)
    worker.draining, worker.drain_finishes = True, finish
    return worker


def undrain(session: Session, worker_id: str) -> Worker:
    """Ends a drain: the worker takes jobs again. Raises NotFound."""
    worker = _living(session, worker_id)
    worker.draining = worker.drain_finishes = False
    return worker


def _living(session: Session, worker_id: str) -> Worker:
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        raise NotFound(f"there is no worker {worker_id!r}; GET /v1/workers lists them")
    if worker.stopped_at is not None:
        raise NotFound(f"worker {worker_id!r} has ended; GET /v1/workers lists those that run")
    return worker
