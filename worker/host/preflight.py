"""Runs the preflight checks of queued jobs: one step on two samples, in a process like a trainer's.

A worker checks one job at a time, on one thread, while it trains others. A check that fails by itself, or takes too long, refuses
no job.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import preflight
from service.database import Database
from service.errors import JobFailure, NotFound
from service.jobs import Renewal
from service.lifecycle import Outcome, Status
from service.preflight import Check
from service.settings import Settings
from service.spec import JobSpec
from service.spec.source import split_source
from service.store import Store
from service.tables import Job
from worker.host.devices import host_memory_gib
from worker.host.executor import Executor, follow
from worker.host.inputs import InputFetcher
from worker.host.lease import Lease
from worker.protocol import LOG_FILE, Assignment, Checked, Failed

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LOG_TAIL_CHARACTERS = 4000
_SHARE_OF_MEMORY = 0.5
"""Of this host's memory, for the networks of a check; larger ones are profiled on the meta device."""
_SETTLING_SECONDS = 60.0
"""By which the lease outlasts the check, to record its outcome."""


class _GivenUp(Exception):
    """A check that ends without a result; the message says why."""


class Checker:
    """The checks of this worker. ``leaving`` tells whether it drains; ``passed`` gets the pool of a job that is queued."""

    def __init__(
        self,
        worker_id: str,
        pool: str,
        *,
        executor: Executor,
        database: Database,
        store: Store,
        settings: Settings,
        scratch: Path,
        leaving: Callable[[], bool],
        passed: Callable[[str], None],
    ) -> None:
        self._worker_id, self._pool, self._executor = worker_id, pool, executor
        self._database, self._store, self._settings, self._scratch = database, store, settings, scratch
        self._leaving, self._passed = leaving, passed
        self._busy = threading.Lock()

    def work(self) -> None:
        """Checks jobs until none is left; returns at once if another thread does so already."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            # An inconclusive check is repeated after the next sweep: its cause may be gone by then.
            while not self._leaving() and (check := self._claim()) is not None and self._check(check):
                pass
        except SQLAlchemyError as error:
            logger.warning("no more checks for now, the database does not answer: %s", error)
        finally:
            self._busy.release()

    def _claim(self) -> Check | None:
        lease = self._lease_seconds
        return self._in_database(lambda s: preflight.claim_check(s, self._worker_id, self._pool, lease_seconds=lease))

    @property
    def _lease_seconds(self) -> float:
        return self._settings.preflight_seconds + _SETTLING_SECONDS

    def _check(self, check: Check) -> bool:
        """Returns whether the next check may follow at once."""
        fence, job = check.fence, check.job
        folder = self._scratch / f"{fence.job_id}-check-{fence.check}"
        folder.mkdir(parents=True)
        try:
            last = self._run_check(check, folder)
        except NotFound as error:
            last = Failed("input_unavailable", error.detail)
        except (OSError, SQLAlchemyError) as error:
            last = _inconclusive(f"the store or the database did not answer: {error}")
        except Exception as error:
            logger.exception("the check of %s failed", fence.job_id)
            last = _inconclusive(f"the check itself failed: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

        def settle(session: Session) -> tuple[Outcome, str | None]:
            match last:
                case Checked(estimate=estimate):
                    memory = self._settings.worker_memory_seconds
                    outcome = preflight.pass_check(session, fence, estimate, memory_seconds=memory)
                case Failed(retryable=True):
                    outcome = preflight.give_up_check(session, fence, last.message)
                case Failed():
                    failure = JobFailure(code=last.code, message=last.message, hint=last.hint, details=last.details)
                    outcome = preflight.refuse_check(session, fence, failure)
            return outcome, session.scalar(select(Job.status).where(Job.id == fence.job_id))

        outcome, status = self._in_database(settle)
        if outcome is Outcome.APPLIED and status == Status.QUEUED:
            self._passed(job.pool)
        return outcome is Outcome.LEASE_LOST or not (isinstance(last, Failed) and last.retryable)

    def _run_check(self, check: Check, folder: Path) -> Checked | Failed:
        """Runs the check in a process of its own."""
        job, memory, lease_seconds = check.job, host_memory_gib(), self._lease_seconds
        inputs = InputFetcher(job.spec, folder, store=self._store, in_database=self._in_database, in_store=lambda work: work())

        def renew(session: Session) -> Renewal | None:
            renewed = preflight.renew_check(session, check.fence, lease_seconds=lease_seconds)
            return Renewal(None, None) if renewed else None

        beat = self._settings.heartbeat_seconds
        with Lease(self._database, job.id, renew, heartbeat_seconds=beat, lease_seconds=lease_seconds) as lease:
            paths = inputs.fetch(unfinished=True)
            assignment = Assignment(
                job_id=job.id,
                spec=job.spec,
                folder=folder,
                inputs=paths,
                num_threads=1,
                check_only=True,
                planned=self._planned(job, known=paths.keys()),
                most_bytes=None if memory is None else int(memory * 2**30 * _SHARE_OF_MEMORY),
            )
            give_up_at = time.monotonic() + self._settings.preflight_seconds

            def give_up_if_needed() -> None:
                if time.monotonic() > give_up_at:
                    raise _GivenUp(f"its check took more than {self._settings.preflight_seconds:g} s")
                if self._leaving():
                    raise _GivenUp("the worker that checked it drains")
                if lease.lost:
                    raise _GivenUp("it is no longer to be checked")

            try:
                ending = follow(self._executor.start(assignment), on_poll=give_up_if_needed)
            except _GivenUp as given_up:
                return _inconclusive(str(given_up))
        last = ending.last
        if not isinstance(last, Checked | Failed):
            last = _inconclusive(f"its check ended without a result, with exit code {ending.exit_code}")
        if isinstance(last, Failed) and last.retryable:
            log = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:]
            logger.warning("the check of %s came to nothing: %s\n%s", job.id, last.message, log)
        return last

    def _planned(self, job: Job, *, known: Any) -> dict[str, dict[str, Any]]:
        """The specs of jobs whose students are teachers of this one and not trained yet, by source."""
        sources = {teacher.source for teacher in JobSpec.model_validate(job.spec).teachers.values()} - set(known)
        ids = {source: split_source(source).name for source in sources if split_source(source).kind == "job"}

        def read_specs(session: Session) -> dict[str, dict[str, Any]]:
            found = {source: session.get(Job, job_id) for source, job_id in ids.items()}
            return {source: needed.spec for source, needed in found.items() if needed is not None}

        return self._in_database(read_specs)

    def _in_database(self, work: Callable[[Session], T]) -> T:
        with self._database.transaction() as session:
            return work(session)


def _inconclusive(why: str) -> Failed:
    return Failed("trainer_error", why, retryable=True)
