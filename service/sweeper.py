"""The timer thread of every API and worker process: takes jobs from silent workers, and wakes idle ones for forgotten jobs.

No scheduler runs as a process of its own. A sweep is harmless to repeat; an outage of a part costs a log line.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from types import TracebackType
from typing import Self

from service import blobs, jobs, scheduling, unlisted_files
from service.broker import Broker
from service.database import Database
from service.own_thread import run_in_own_thread
from service.part_errors import log_failure
from service.store import Store

_END_SECONDS = 5.0
"""So long the end of a sweeper waits for a removal of files."""

logger = logging.getLogger(__name__)


class Sweeper:
    """``with Sweeper(…):`` sweeps at once and then at each interval, unless another process has just begun a sweep."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        store: Store,
        *,
        interval_seconds: float,
        lease_seconds: float,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """``then`` is called after each interval, whoever swept."""
        self._database = database
        self._broker = broker
        self._store = store
        self._interval_seconds, self._lease_seconds, self._then = interval_seconds, lease_seconds, then
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._removal: Future[None] = Future()
        """Of files: the one under way, or the last. A store that hangs holds up nothing else that a sweep does."""
        self._removal.set_result(None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        wait([self._removal], timeout=_END_SECONDS)

    def sweep(self) -> None:
        """Runs one sweep, sends the wake-ups that are due, and begins to remove files that are no longer needed."""
        with self._database.transaction() as session:
            if not scheduling.sweep(session, lease_seconds=self._lease_seconds):
                return
            urgent, reserved = scheduling.pools_with_urgent_jobs(session), scheduling.pools_with_reservations(session)
        # Not in the sweep's own transaction: claims may wait for its locks, and these wait for claims.
        for act, pools in ((scheduling.preempt, urgent), (scheduling.move_reservations, reserved)):
            for pool in pools:
                with self._database.transaction() as session:
                    act(session, pool, lease_seconds=self._lease_seconds)
        with self._database.transaction() as session:
            due = scheduling.wakes_due(session, lease_seconds=self._lease_seconds)
        self._broker.wake_forgotten(due)
        if self._removal.done():
            self._removal = run_in_own_thread(partial(self._noting_errors, self._remove_files), name="sweeper's files")

    def _remove_files(self) -> None:
        """The files first, then the rows: after a crash in between they still say what is to be removed."""
        with self._database.transaction() as session:
            blobs.sweep(session)
        with self._database.transaction() as session:
            spent, prefixes = jobs.spent_checkpoints(session), unlisted_files.to_remove(session)
            untidied = jobs.untidied(session, lease_seconds=self._lease_seconds)
        acts = [
            *(partial(self._remove_checkpoint, job_id, key) for job_id, key in spent.items()),
            *(partial(self._remove_unlisted, prefix) for prefix in prefixes),
            *(partial(self._tidy, job_id) for job_id in untidied),
        ]
        if acts:
            self._store.ping()  # that it is away is told once
        for act in acts:
            self._noting_errors(act)  # a file that cannot be removed keeps no other

    def _remove_checkpoint(self, job_id: str, key: str) -> None:
        self._store.remove([key])
        with self._database.transaction() as session:
            jobs.forget_checkpoints(session, {job_id: key})

    def _remove_unlisted(self, prefix: str) -> None:
        self._store.remove_prefix(prefix)
        with self._database.transaction() as session:
            unlisted_files.forget(session, prefix)

    def _tidy(self, job_id: str) -> None:
        with self._database.transaction() as session:
            named = jobs.named_files(session, job_id)
        self._store.remove_others(f"jobs/{job_id}", named)
        with self._database.transaction() as session:
            jobs.note_tidied(session, job_id)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for act in (self._sweep_if_due, self._then):
                self._noting_errors(act)
            self._stopping.wait(self._interval_seconds)

    def _noting_errors(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - the next sweep does it
            log_failure(logger, "this sweep is left out", error)

    def _sweep_if_due(self) -> None:
        with self._database.transaction() as session:
            is_due = scheduling.claim_sweep(session, every_seconds=self._interval_seconds / 2, lease_seconds=self._lease_seconds)
        if is_due:
            self.sweep()


def preempt(database: Database, pool: str, *, lease_seconds: float) -> None:
    """Preempts for a job of high priority that was just queued. If the database is away, the next sweep does it."""
    try:
        with database.transaction() as session:
            scheduling.preempt(session, pool, lease_seconds=lease_seconds)
    except Exception as error:  # noqa: BLE001 - the next sweep does it
        log_failure(logger, f"no job of pool {pool} is preempted before the next sweep", error)
