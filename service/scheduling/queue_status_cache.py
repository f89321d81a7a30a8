"""A process's queue statuses, shared by all its readers: one thread computes a new one while the others read the last."""

import threading
import time
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from service.lifecycle import Status
from service.scheduling.explain import Place, QueueStatus, explain
from service.tables import Job

_MAX_AGE_PER_SECOND = 10.0
"""The maximum age grows by so many times what a status took to compute: computing them takes a small part of the time."""


@dataclass
class _Entry:
    """The last status of a pool."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread that computes the next one."""
    queue_status: QueueStatus | None = None
    good_until: float = float("-inf")
    """By :func:`time.monotonic`."""


class QueueStatusCache:
    """Computes a pool's status anew once the last one is older than ``max_age_seconds``.

    A status that takes long to compute, of a large queue, is kept for longer.
    """

    def __init__(self, *, lease_seconds: float, max_age_seconds: float) -> None:
        self._lease_seconds, self._max_age_seconds = lease_seconds, max_age_seconds
        self._entries: dict[str, _Entry] = {}

    def of(self, session: Session, pool: str) -> QueueStatus:
        """A pool's status, seconds old at most."""
        entry = self._entries.setdefault(pool, _Entry())
        last = entry.queue_status
        return self.recent(pool) or self._compute(session, pool, entry, instead_of=last)

    def recent(self, pool: str) -> QueueStatus | None:
        """The last status while it need not be computed anew, or while another thread does."""
        entry = self._entries.get(pool)
        if entry is None or entry.queue_status is None:
            return None
        is_good = time.monotonic() < entry.good_until or (self._max_age_seconds > 0 and entry.lock.locked())
        return entry.queue_status if is_good else None

    def place(self, session: Session, job: Job) -> Place | None:
        """A job's place; None unless it is queued. The status is computed anew for a job that entered the queue after it."""
        if job.status != Status.QUEUED:
            return None
        last = self.of(session, job.pool)
        if last.place(job) is None:
            last = self._compute(session, job.pool, self._entries[job.pool], instead_of=last)
        return last.place(job)

    def _compute(self, session: Session, pool: str, entry: _Entry, *, instead_of: QueueStatus | None) -> QueueStatus:
        with entry.lock:
            if entry.queue_status is not None and entry.queue_status is not instead_of:
                return entry.queue_status  # another reader computed it meanwhile
            started = time.monotonic()
            entry.queue_status = queue_status = explain(session, pool, lease_seconds=self._lease_seconds)
            ended = time.monotonic()
            entry.good_until = ended + self._max_age_seconds * max(1.0, _MAX_AGE_PER_SECOND * (ended - started))
            return queue_status
