"""Runs the preflight checks of queued jobs: one step on two samples, in a process like a trainer's.

A worker checks one job at a time, on one thread, while it trains others. A check that fails by itself, or takes too long, refuses
no job; one that meets an outage waits, or is given back and does not count. Previews, which people wait for, go before checks.
"""

import logging
import threading
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import preflight
from service.database import Database
from service.errors import JobFailure
from service.lifecycle import Outcome, Status
from service.part_errors import log_failure
from service.preflight import Check
from service.settings import Settings
from service.tables import Job
from worker.host.access import GaveUpWaiting, LeasedAccess
from worker.host.lease import LeaseLost
from worker.host.miniature import Miniature, MiniatureRunner
from worker.host.previewer import Previewer
from worker.protocol import Checked, Event, Failed, Previewed

logger = logging.getLogger(__name__)


class Checker:
    """The checks and previews of this worker.

    ``leaving`` tells whether it drains; ``passed`` gets the pool of a job that is queued.
    """

    def __init__(
        self,
        worker_id: str,
        pool: str,
        *,
        runner: MiniatureRunner,
        database: Database,
        settings: Settings,
        leaving: Callable[[], bool],
        passed: Callable[[str], None],
    ) -> None:
        self._worker_id, self._pool, self._runner = worker_id, pool, runner
        self._database, self._settings = database, settings
        self._leaving, self._passed = leaving, passed
        self._previewer = Previewer(pool, runner=runner, database=database, lease_seconds=settings.lease_seconds)
        self._busy = threading.Lock()

    def work(self) -> None:
        """Makes previews and checks until none is left; returns at once if another thread does so already."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            # An inconclusive one is repeated after the next sweep: its cause may be gone by then.
            while not self._leaving() and (self._previewer.make_next() or self._check_next()):
                pass
        except Exception as error:  # noqa: BLE001 - jobs are trained all the same
            log_failure(logger, "no more checks for now", error)
        finally:
            self._busy.release()

    def _check_next(self) -> bool:
        """Returns whether the next check may follow at once."""
        lease_seconds = self._settings.lease_seconds
        check = self._database.run(
            lambda session: preflight.claim_check(session, self._worker_id, self._pool, lease_seconds=lease_seconds)
        )
        return check is not None and self._check(check)

    def _check(self, check: Check) -> bool:
        """Returns whether the next check may follow at once."""
        fence = check.fence
        of = Miniature(f"{fence.job_id}-check-{fence.check}", check.job.spec, check.job.owner_id, job_id=fence.job_id)

        def renew(session: Session) -> bool:
            return preflight.renew_check(session, fence, lease_seconds=self._settings.lease_seconds)

        with self._runner.holding(of, renew) as access:
            settled: list[bool] = []

            def pass_at_once(event: Event) -> None:
                """Lets the job go on before the process of its check has ended, which takes as long as a step."""
                if isinstance(event, Checked):
                    settled.append(self._settle(check, event, access))

            try:
                last = self._runner.run(of, access, on_event=pass_at_once)
                return settled[0] if settled else self._settle(check, last, access)
            except LeaseLost:
                return True  # it was cancelled, for instance
            except GaveUpWaiting as error:
                logger.warning("the check of %s is left to the next worker, without %s", fence.job_id, error)
                return False

    def _settle(self, check: Check, last: Checked | Previewed | Failed | None, access: LeasedAccess) -> bool:
        """Records the result, or that there is none; returns whether the next check may follow at once."""
        fence = check.fence

        def settle(session: Session) -> tuple[Outcome, str | None]:
            match last:
                case Checked(estimate=estimate, preview=preview):
                    memory = self._settings.worker_memory_seconds
                    outcome = preflight.pass_check(session, fence, estimate, preview=preview, memory_seconds=memory)
                case Failed(retryable=True):
                    outcome = preflight.give_up_check(session, fence, last.message)
                case Failed():
                    failure = JobFailure(code=last.code, message=last.message, hint=last.hint, details=last.details)
                    outcome = preflight.refuse_check(session, fence, failure)
                case _:
                    why = "the worker that checked it drains" if self._leaving() else "its process was told to end"
                    outcome = preflight.give_back_check(session, fence, why)
            return outcome, session.scalar(select(Job.status).where(Job.id == fence.job_id))

        outcome, status = access.in_database(settle)
        if outcome is Outcome.APPLIED and status == Status.QUEUED:
            self._passed(check.job.pool)
        is_conclusive = last is not None and not (isinstance(last, Failed) and last.retryable)
        return outcome is Outcome.LEASE_LOST or is_conclusive
