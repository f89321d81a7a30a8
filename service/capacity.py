"""The capacity of a pool's workers: a job that none of them could ever hold is refused instead of queued for ever.

A worker that stopped a while ago still counts: its host may be restarting. A pool that has had no worker so far, if the settings
name it, is expected to get the workers that its jobs need.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from sqlalchemy import DateTime, bindparam, select, text
from sqlalchemy.orm import Session

from service.clock import Clock, own_time
from service.errors import FieldError
from service.spec.job import ResourceSpec
from service.tables import Worker

_DEVICES = text(
    """
SELECT DISTINCT devices
FROM workers, (SELECT coalesce(:at, now()) - make_interval(secs => :memory_seconds) AS oldest) AS memory
WHERE pool = :pool AND heartbeat_at > oldest AND (stopped_at IS NULL OR stopped_at > oldest)
"""
).bindparams(bindparam("at", type_=DateTime(timezone=True)))
"""Text, as are the statements of each submission: building one anew of expressions costs more than running it."""
_KEY = "capacities"
_REMEMBERED_SECONDS = 10.0


@dataclass(frozen=True)
class Capacity:
    """The devices of the workers that a pool has, or had until lately."""

    pool: str
    devices: Sequence[Sequence[dict[str, Any]]]
    """The devices of each worker; workers with the same devices count once."""

    def largest_gib(self, kind: str, *, count: int = 1) -> float | None:
        """Memory of each of ``count`` devices of the best host, in GiB; None if no host has so many.

        Infinite if a worker does not know its devices' memory: they may hold anything.
        """
        return max((sizes[count - 1] for sizes in self._sizes(kind) if len(sizes) >= count), default=None)

    def most(self, kind: str, *, memory_gib: float = 0.0) -> int:
        """Devices of a kind (``cpu`` or ``cuda``) of the best host, each known to have at least ``memory_gib``."""
        asked = whole_gib(memory_gib)
        counts = (sum(not asked or (size < inf and asked <= whole_gib(size)) for size in sizes) for sizes in self._sizes(kind))
        return max(counts, default=0)

    def _sizes(self, kind: str) -> list[list[float]]:
        """Memory of each worker's devices of that kind in GiB, largest first."""
        return [
            sorted((device.get("memory_gib") or inf for device in devices if device["kind"] == kind), reverse=True)
            for devices in self.devices
        ]


def capacity(session: Session, pool: str, *, memory_seconds: float) -> Capacity:
    """The capacity of the pool's workers whose last heartbeat, and stop if they stopped, is at most ``memory_seconds`` old."""
    found = session.execute(_DEVICES, {"pool": pool, "at": own_time(session), "memory_seconds": memory_seconds})
    return Capacity(pool, found.scalars().all())


def info(clock: Clock | None) -> dict[str, Any]:
    """The entry of a session's ``info`` by which :func:`resource_faults` remembers for seconds what a pool had.

    That is never why a job is refused; one that a worker could hold a moment ago is taken as it would have been then.
    """
    return {_KEY: {} if clock is None else None}


def whole_gib(memory_gib: float) -> int:
    """A GPU's memory rounded up, as it is compared: a GPU that is sold with 80 GB has 79.2 GiB."""
    return ceil(memory_gib)


def pools(session: Session, configured: Sequence[str]) -> list[str]:
    """The pools that jobs may name: those in the settings, and those that workers have served."""
    return sorted({*configured, *session.scalars(select(Worker.pool).distinct())})


def resource_faults(
    session: Session, resources: ResourceSpec, *, configured_pools: Sequence[str], memory_seconds: float
) -> list[FieldError]:
    """The errors of resources that no worker could ever provide."""
    if not _is_known(session, resources.pool, configured_pools):
        known = pools(session, configured_pools)
        message = (
            f"there is no pool {resources.pool!r}: no worker has served it, and the settings do not name it; use {_or(known)}"
        )
        return [FieldError(pointer="/resources/pool", message=message)]
    remembered: dict[str, tuple[float, Capacity]] | None = session.info.get(_KEY)
    until, had = (remembered or {}).get(resources.pool, (float("-inf"), None))
    if had is not None and time.monotonic() < until and not _faults(resources, had):
        return []
    had = capacity(session, resources.pool, memory_seconds=memory_seconds)
    if remembered is not None and had.devices:
        remembered[resources.pool] = (time.monotonic() + _REMEMBERED_SECONDS, had)
    return _faults(resources, had)


def _faults(resources: ResourceSpec, had: Capacity) -> list[FieldError]:
    if not had.devices:
        return []
    if not resources.gpus:
        slots = had.most("cpu")
        if slots >= resources.cpu_slots:
            return []
        message = f"no worker of pool {resources.pool!r} has {_slots(resources.cpu_slots)}: {_best(slots, 'CPU slot')}"
        return [FieldError(pointer="/resources/cpu_slots" if slots else "/resources/gpus", message=message)]
    gpus = had.most("cuda")
    if gpus < resources.gpus:
        message = f"no worker of pool {resources.pool!r} has {_gpus(resources.gpus)}: {_best(gpus, 'GPU')}"
        return [FieldError(pointer="/resources/gpus", message=message)]
    memory = resources.min_gpu_memory_gib
    if memory is not None and had.most("cuda", memory_gib=memory) < resources.gpus:
        largest = had.largest_gib("cuda", count=resources.gpus)
        what = "largest GPU has" if resources.gpus == 1 else f"best host has {resources.gpus} of"
        best = "the memory of its GPUs is not known" if largest in (None, inf) else f"its {what} {largest:g} GiB"
        message = f"no worker of pool {resources.pool!r} has {_gpus(resources.gpus)} of {memory:g} GiB or more; {best}"
        return [FieldError(pointer="/resources/min_gpu_memory_gib", message=message)]
    return []


def _is_known(session: Session, pool: str, configured: Sequence[str]) -> bool:
    return pool in configured or session.scalar(select(Worker.id).where(Worker.pool == pool).limit(1)) is not None


def _or(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names)) or "another once a worker serves it"


def _gpus(count: int) -> str:
    return "a GPU" if count == 1 else f"{count} GPUs"


def _slots(count: int) -> str:
    return "a CPU slot" if count == 1 else f"{count} CPU slots"


def _best(count: int, what: str) -> str:
    return f"none has any {what}" if not count else f"the most on one host is {count}"
