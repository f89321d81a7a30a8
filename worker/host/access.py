"""Access to the database and the store for an attempt, or a check: what is away is waited for, however long, under the lease."""

import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy.orm import Session

from service import jobs
from service.database import Database
from service.jobs import Fence
from service.lifecycle import Outcome
from service.part_errors import HostDiskFull, is_passing
from service.store import Store
from worker.host.lease import Lease, LeaseLost
from worker.sources.errors import HubAway

logger = logging.getLogger(__name__)
T = TypeVar("T")

_RETRY_SECONDS = 1.0
_SAY_AGAIN_SECONDS = 60.0
_STORE_PATIENCE_SECONDS = 600.0
"""For an error of the store that does not say that it is away."""


def attempt_prefix(fence: Fence) -> str:
    """Where the files of an attempt are in the store. No row names them until it publishes."""
    return f"jobs/{fence.job_id}/{fence.attempt}"


class GaveUpWaiting(Exception):
    """A part is away, and the job is to leave this worker before that part is back."""


class Access(Protocol):
    """A database, a store and a Hub that are waited for."""

    @property
    def store(self) -> Store:
        """The store."""

    def in_database(self, work: Callable[[Session], T]) -> T:
        """Runs a function of a session in a transaction."""

    def in_store(self, work: Callable[[], T]) -> T:
        """Runs what uses the store."""

    def in_hub(self, work: Callable[[], T]) -> T:
        """Runs what uses the Hub. Raises HubAway if it does not come back."""


class LeasedAccess:
    """Access for the holder of ``lease``.

    Every method waits until the lease is confirmed, and then for what is away, and raises

    - :class:`LeaseLost` once the lease is lost,
    - :class:`GaveUpWaiting` after ``grace_seconds`` of waiting while ``leaving``; for the store also after a cancel.
    """

    def __init__(
        self,
        job_id: str,
        *,
        database: Database,
        store: Store,
        lease: Lease,
        leaving: Callable[[], bool],
        grace_seconds: float,
        hub_seconds: float,
    ) -> None:
        self._store = store
        self._job_id, self._database, self._lease = job_id, database, lease
        self._leaving, self._grace_seconds, self._hub_seconds = leaving, grace_seconds, hub_seconds
        self._hurried_since: float | None = None
        self._said = ("", 0.0)
        self._numbers = itertools.count(1)  # two threads never get the same

    @property
    def store(self) -> Store:
        """The store that :meth:`in_store` waits for."""
        return self._store

    def require_lease(self) -> None:
        """Raises LeaseLost if the lease is lost; waits for nothing."""
        if self._lease.lost:
            raise LeaseLost

    def in_database(self, work: Callable[[Session], T]) -> T:
        """Repeats a transaction until the database is available."""
        while True:
            self._await_lease()
            try:
                return self._database.run(work)
            except Exception as error:
                if not is_passing(error):
                    raise
                self._wait("the database", error, hurried=self._leaving())

    def write(self, fence: Fence, work: Callable[[Session], Outcome]) -> None:
        """Makes a write of the attempt, once, although the answer to a commit may be lost."""
        number = next(self._numbers)
        try:
            outcome = self.in_database(lambda session: jobs.write_once(session, fence, number, work))
        except LeaseLost:
            if not self._has_written(fence, number):
                raise
            return
        if outcome is Outcome.LEASE_LOST:
            raise LeaseLost

    def in_store(self, work: Callable[[], T]) -> T:
        """Repeats work on the store until it is available. Raises HostDiskFull, which no waiting for the store mends."""
        give_up_at = time.monotonic() + _STORE_PATIENCE_SECONDS
        while True:
            self._await_lease()
            try:
                return work()
            except HostDiskFull:
                raise
            except Exception as error:
                may_pass = isinstance(error, OSError) and time.monotonic() < give_up_at
                if not may_pass and not is_passing(error):
                    raise
                renewal = self._lease.renewal
                if renewal.stop_requested == "cancel" and renewal.stop_keep == "none":
                    raise GaveUpWaiting("the store") from error
                self._wait("the store", error, hurried=self._leaving() or renewal.stop_requested == "cancel")

    def in_hub(self, work: Callable[[], T]) -> T:
        """Repeats work on the Hub until it is available. Raises HubAway after ``hub_seconds``, in which devices were idle."""
        give_up_at = time.monotonic() + self._hub_seconds
        while True:
            self._await_lease()
            try:
                return work()
            except HubAway as error:
                if time.monotonic() > give_up_at:
                    raise
                self._wait(error.part, error, hurried=self._leaving() or self._lease.renewal.stop_requested is not None)

    def _has_written(self, fence: Fence, number: int) -> bool:
        """Whether the write that ended the attempt, and its lease with it, was made."""
        try:
            return self._database.run(lambda session: jobs.num_writes(session, fence)) == number
        except Exception as error:
            if not is_passing(error):
                raise
            return False

    def _await_lease(self) -> None:
        while not self._lease.confirmed:
            self._wait("the renewal of its lease", hurried=self._leaving())

    def _wait(self, part: str, error: Exception | None = None, *, hurried: bool) -> None:
        self.require_lease()
        now = time.monotonic()
        self._hurried_since = (self._hurried_since or now) if hurried else None
        if self._hurried_since is not None and now - self._hurried_since > self._grace_seconds:
            raise GaveUpWaiting(part) from error
        said, said_at = self._said
        if part != said or now - said_at > _SAY_AGAIN_SECONDS:
            logger.warning("%s waits for %s%s", self._job_id, part, "" if error is None else f": {error}")
            self._said = (part, now)
        time.sleep(_RETRY_SECONDS)
