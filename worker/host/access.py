"""Access to the database and the store for one attempt: repeated over an outage, given up with the lease."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service.database import Database
from service.jobs import Fence
from service.lifecycle import Outcome
from service.store import Store
from worker.host.lease import Lease

logger = logging.getLogger(__name__)
T = TypeVar("T")

_DATABASE_RETRY_SECONDS = 1.0
_STORE_RETRY_SECONDS = 1.0
_STORE_PATIENCE_SECONDS = 600.0


class LeaseLost(Exception):
    """Another attempt may hold the job: nothing may be published."""


class LeasedAccess:
    """Access for the attempt that ``fence`` names; ``prefix`` is that of its files in the store, which no row names yet.

    Every method raises :class:`LeaseLost` once the lease is lost.
    """

    def __init__(self, fence: Fence, *, database: Database, store: Store, lease: Lease) -> None:
        self.fence, self.store = fence, store
        self.prefix = f"jobs/{fence.job_id}/{fence.attempt}"
        self._database, self._lease = database, lease

    def require_lease(self) -> None:
        """Raises LeaseLost if the lease is lost."""
        if self._lease.lost:
            raise LeaseLost

    def settle(self, transition: Callable[[Session], Outcome]) -> None:
        """Runs a fenced transition of the job."""
        if self.in_database(transition) is Outcome.LEASE_LOST:
            raise LeaseLost

    def in_database(self, work: Callable[[Session], T]) -> T:
        """Repeats a transaction until the database is available or the lease is lost."""
        while True:
            try:
                with self._database.transaction() as session:
                    return work(session)
            except SQLAlchemyError as error:
                if not _is_outage(error):
                    raise
                logger.warning("%s waits for the database: %s", self.fence.job_id, error)
                if self._lease.lost:
                    raise LeaseLost from error
                time.sleep(_DATABASE_RETRY_SECONDS)

    def in_store(self, work: Callable[[], T]) -> T:
        """Repeats work on the store for some minutes, so that a short outage does not cost hours of training."""
        give_up_at = time.monotonic() + _STORE_PATIENCE_SECONDS
        while True:
            try:
                return work()
            except OSError as error:
                if self._lease.lost:
                    raise LeaseLost from error
                if time.monotonic() > give_up_at:
                    raise
                logger.warning("%s waits for the store: %s", self.fence.job_id, error)
                time.sleep(_STORE_RETRY_SECONDS)


def _is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database was unavailable rather than refused a statement."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )
