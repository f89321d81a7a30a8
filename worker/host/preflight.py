"""Runs the preflight checks of queued jobs: one step on two samples, in a process like a trainer's.

A worker checks one job at a time, on one thread, while it trains others. A check that fails by itself, or takes too long, refuses
no job; one that meets an outage waits, or is given back and does not count.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import preflight
from service.database import Database
from service.errors import JobFailure, NotFound
from service.jobs import Renewal
from service.lifecycle import Outcome, Status
from service.part_errors import log_failure
from service.preflight import Check
from service.settings import Settings
from service.spec import JobSpec
from service.spec.source import split_network
from service.store import Store
from service.tables import Job
from worker.host.access import GaveUpWaiting, LeasedAccess
from worker.host.devices import host_memory_gib
from worker.host.executor import Executor, follow
from worker.host.inputs import InputFetcher, Inputs, hub_token
from worker.host.lease import Lease, LeaseLost
from worker.protocol import LOG_FILE, Assignment, Checked, Event, Failed, Stopped
from worker.sources.cache import NetworkCache
from worker.sources.errors import HubAway, NotOnThisHost, SourceRefused
from worker.sources.revisions import network_sources

logger = logging.getLogger(__name__)

_LOG_TAIL_CHARACTERS = 4000
_SHARE_OF_MEMORY = 0.5
"""Of this host's memory, for the networks of a check; larger ones are profiled on the meta device."""
_LEAVING_SECONDS = 5.0
"""How long a worker that drains waits for a part that is away, to say that it gives a check back."""


class _TooLong(Exception):
    """A check that has used up its time."""


class _Leaving(Exception):
    """A check that ends because its worker drains, or its process was told to end."""


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
        except Exception as error:  # noqa: BLE001 - jobs are trained all the same
            log_failure(logger, "no more checks for now", error)
        finally:
            self._busy.release()

    def _claim(self) -> Check | None:
        lease_seconds = self._settings.lease_seconds
        return self._database.run(
            lambda session: preflight.claim_check(session, self._worker_id, self._pool, lease_seconds=lease_seconds)
        )

    def _check(self, check: Check) -> bool:
        """Returns whether the next check may follow at once."""
        fence, lease_seconds = check.fence, self._settings.lease_seconds

        def renew(session: Session) -> Renewal | None:
            renewed = preflight.renew_check(session, fence, lease_seconds=lease_seconds)
            return Renewal(None, None) if renewed else None

        lease = Lease(
            self._database,
            fence.job_id,
            renew,
            heartbeat_seconds=self._settings.heartbeat_seconds,
            lease_seconds=lease_seconds,
            outage_seconds=self._settings.lease_outage_seconds,
        )
        folder = self._scratch / f"{fence.job_id}-check-{fence.check}"
        with lease:
            access = LeasedAccess(
                fence.job_id,
                database=self._database,
                store=self._store,
                lease=lease,
                leaving=self._leaving,
                grace_seconds=_LEAVING_SECONDS,
                hub_seconds=self._settings.hub_seconds,
            )
            settled: list[bool] = []

            def pass_at_once(event: Event) -> None:
                """Lets the job go on before the process of its check has ended, which takes as long as a step."""
                if isinstance(event, Checked):
                    settled.append(self._settle(check, event, access))

            try:
                last = self._result(check, folder, access, lease, on_event=pass_at_once)
                return settled[0] if settled else self._settle(check, last, access)
            except LeaseLost:
                return True  # it was cancelled, for instance
            except GaveUpWaiting as error:
                logger.warning("the check of %s is left to the next worker, without %s", fence.job_id, error)
                return False
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _settle(self, check: Check, last: Checked | Failed | None, access: LeasedAccess) -> bool:
        """Records the result, or that there is none; returns whether the next check may follow at once."""
        fence = check.fence

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
                case None:
                    why = "the worker that checked it drains" if self._leaving() else "its process was told to end"
                    outcome = preflight.give_back_check(session, fence, why)
            return outcome, session.scalar(select(Job.status).where(Job.id == fence.job_id))

        outcome, status = access.in_database(settle)
        if outcome is Outcome.APPLIED and status == Status.QUEUED:
            self._passed(check.job.pool)
        is_conclusive = last is not None and not (isinstance(last, Failed) and last.retryable)
        return outcome is Outcome.LEASE_LOST or is_conclusive

    def _result(
        self, check: Check, folder: Path, access: LeasedAccess, lease: Lease, *, on_event: Callable[[Event], None]
    ) -> Checked | Failed | None:
        """None if it was told to end before there is one."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._run_check(check.job, folder, access, lease, on_event=on_event)
        except _Leaving:
            return None
        except NotFound as error:
            return Failed("input_unavailable", error.detail)
        except (HubAway, NotOnThisHost) as away:  # of data, without which nothing can be checked
            return _inconclusive(away.message)
        except SourceRefused as refused:
            details = {} if refused.pointer is None else {"pointer": refused.pointer}
            return Failed(refused.code, refused.message, refused.hint, details)
        except (LeaseLost, GaveUpWaiting):
            raise
        except Exception as error:
            logger.exception("the check of %s failed", check.job.id)
            return _inconclusive(f"the check itself failed: {error}")

    def _run_check(
        self, job: Job, folder: Path, access: LeasedAccess, lease: Lease, *, on_event: Callable[[Event], None]
    ) -> Checked | Failed:
        """Runs the check in a process of its own."""
        give_up_at = time.monotonic() + self._settings.preflight_seconds

        def give_up_if_needed() -> None:
            access.require_lease()
            if time.monotonic() > give_up_at + fetcher.conversion_seconds:
                raise _TooLong
            if self._leaving():
                raise _Leaving

        networks = self._settings.network_cache_folder or self._scratch / "network-cache"
        cache = NetworkCache(networks, max_bytes=self._settings.network_cache_bytes)
        data = self._settings.data_cache_folder or self._scratch / "data-cache"
        try:
            with InputFetcher(
                job.spec,
                folder,
                access=access,
                cache=cache,
                data_cache=NetworkCache(data, max_bytes=self._settings.data_cache_bytes),
                roots=self._settings.file_roots,
                token=lambda: hub_token(access, job, self._settings),
                on_poll=give_up_if_needed,
            ) as fetcher:
                assignment = self._assignment(job, folder, access, fetcher.fetch_for_check())
                ending = follow(self._executor.start(assignment), on_event=on_event, on_poll=give_up_if_needed)
        except _TooLong:
            return _inconclusive(f"its check took more than {self._settings.preflight_seconds:g} s")
        last = ending.last
        if isinstance(last, Stopped):
            raise _Leaving
        if not isinstance(last, Checked | Failed):
            last = _inconclusive(f"its check ended without a result, with exit code {ending.exit_code}")
        if isinstance(last, Failed) and last.retryable:
            log = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:]
            logger.warning("the check of %s came to nothing: %s\n%s", job.id, last.message, log)
        return last

    def _assignment(self, job: Job, folder: Path, access: LeasedAccess, inputs: Inputs) -> Assignment:
        memory = host_memory_gib()
        known = inputs.paths.keys()
        return Assignment(
            job_id=job.id,
            spec=job.spec,
            folder=folder,
            inputs=inputs.paths,
            revisions=inputs.revisions,
            num_threads=1,
            check_only=True,
            planned=access.in_database(lambda session: _planned(session, job, known=known)),
            away=inputs.away,
            most_bytes=None if memory is None else int(memory * 2**30 * _SHARE_OF_MEMORY),
        )


def _planned(session: Session, job: Job, *, known: Collection[str]) -> dict[str, dict[str, Any]]:
    """The specs of jobs whose networks this one uses and that are not trained yet, by source."""
    sources = set(network_sources(JobSpec.model_validate(job.spec)).values()) - set(known)
    ids = {source: split_network(source).name for source in sources if split_network(source).kind == "job"}
    found = {source: session.get(Job, job_id) for source, job_id in ids.items()}
    return {source: needed.spec for source, needed in found.items() if needed is not None}


def _inconclusive(why: str) -> Failed:
    return Failed("trainer_error", why, retryable=True)
