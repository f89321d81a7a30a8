"""The heartbeat of one job that runs or is checked, on a thread of its own, so that no work delays it.

The lease's end is computed on this host's monotonic clock from *before* the renewal was sent, so that this host holds back before
the database lets another worker claim the job. While the database does not answer, the work goes on past that end: only the
database can say that the lease is lost. Until it has renewed it, nothing is written (:class:`~worker.host.access.LeasedAccess`).
"""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from service.database import Database
from service.jobs import Renewal

logger = logging.getLogger(__name__)
_MARGIN = 0.2
"""Share of the lease by which this host holds back early."""


class LeaseLost(Exception):
    """Another attempt may hold the job: nothing may be published."""


class Lease:
    """Renewed every ``heartbeat_seconds`` until the block ends.

    ``renew`` extends it in the database and returns None once it is lost. ``on_loss`` is called once, on the heartbeat's thread.
    ``outage_seconds`` is how long the work may go on past the lease's end without an answer of the database.
    """

    def __init__(
        self,
        database: Database,
        job_id: str,
        renew: Callable[[Session], Renewal | None],
        *,
        heartbeat_seconds: float,
        lease_seconds: float,
        outage_seconds: float,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._job_id, self._renew = job_id, renew
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds, self._outage_seconds = lease_seconds, outage_seconds
        self._on_loss = on_loss
        self._ends_at = time.monotonic() + lease_seconds * (1 - _MARGIN)
        self._over = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {job_id}", daemon=True)
        self.renewal = Renewal(None, None)
        """The last answer, with the stop that is requested of the job."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether the database said so, or has not answered for too long."""
        return self._lost.is_set()

    @property
    def confirmed(self) -> bool:
        """Whether no other worker can hold the job by now, by this host's own clock; not so after a freeze or an outage."""
        return not self.lost and time.monotonic() < self._ends_at

    def _beat(self) -> None:
        pause = self._heartbeat_seconds
        while not self._over.wait(pause):
            asked_at = time.monotonic()
            try:
                renewal = self._database.run(self._renew)
            except Exception as error:  # noqa: BLE001 - without its heartbeat the work would wait for ever
                logger.warning("no heartbeat for %s: %s: %s", self._job_id, type(error).__name__, error)
                pause = min(1.0, self._heartbeat_seconds)
                if time.monotonic() < self._ends_at + self._outage_seconds:
                    continue
                renewal = None
            if renewal is None:
                self._lost.set()
                self._on_loss()
                return
            pause = self._heartbeat_seconds
            self.renewal = renewal
            self._ends_at = asked_at + self._lease_seconds * (1 - _MARGIN)
