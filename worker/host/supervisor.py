"""One attempt at one job, as the host runs it: inputs, trainer, lease, record, settlement.

Every write is fenced by the attempt. Once the lease is lost the trainer is killed and nothing is published: files that this
attempt wrote to the store stay under its own prefix, which no row names. While the database or the store is away the trainer
goes on, and what is to be written waits.
"""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import jobs
from service.database import Database
from service.errors import JobFailure, NotFound
from service.scheduling import Claim
from service.settings import Settings
from service.store import Store
from service.tables import Artifact
from worker.host.access import GaveUpWaiting, LeasedAccess
from worker.host.executor import Executor, Trainer, follow
from worker.host.inputs import InputFetcher, Inputs, hub_token
from worker.host.lease import Lease, LeaseLost
from worker.host.recorder import Recorder
from worker.host.settlement import Settlement
from worker.protocol import CHECKPOINT_FILE, Assignment, HostDevices, StopRequest
from worker.sources.cache import NetworkCache
from worker.sources.errors import HubAway, SourceRefused

logger = logging.getLogger(__name__)


class _TimeIsUp(Exception):
    """The job has run for as long as it may."""


class Supervisor:
    """The parent of one trainer on ``host``. ``leaving`` tells whether the worker drains, so that the job is requeued."""

    def __init__(
        self,
        claim: Claim,
        *,
        executor: Executor,
        host: str,
        database: Database,
        store: Store,
        settings: Settings,
        scratch: Path,
        num_threads: int,
        leaving: Callable[[], bool],
    ) -> None:
        self._claim = claim
        self._fence = claim.fence
        self._spec: dict[str, Any] = claim.job.spec
        self._executor = executor
        self._host = host
        self._database = database
        self._store = store
        self._settings = settings
        self._num_threads = num_threads
        folder = settings.network_cache_folder or scratch / "network-cache"
        self._networks = NetworkCache(folder, max_bytes=settings.network_cache_bytes)
        self._data = NetworkCache(settings.data_cache_folder or scratch / "data-cache", max_bytes=settings.data_cache_bytes)
        self._leaving = leaving
        self._folder = scratch / f"{claim.fence.job_id}-{claim.fence.attempt}"
        self._started = time.monotonic()
        self._trainer: Trainer | None = None

    def run(self) -> bool:
        """Runs the attempt to its end and settles it. Returns whether this host took it from its job."""
        settings = self._settings
        lease = Lease(
            self._database,
            self._fence.job_id,
            lambda session: jobs.renew_lease(session, self._fence, lease_seconds=settings.lease_seconds),
            heartbeat_seconds=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            outage_seconds=settings.lease_outage_seconds,
            on_loss=self._kill,
        )
        with lease:
            self._lease = lease
            self._access = LeasedAccess(
                self._fence.job_id,
                database=self._database,
                store=self._store,
                lease=lease,
                leaving=self._leaving,
                grace_seconds=settings.stop_grace_seconds,
                hub_seconds=settings.hub_seconds,
            )
            self._recorder = Recorder(self._claim, self._folder, self._access)
            self._settlement = Settlement(self._claim, self._folder, self._access, self._recorder.log)
            try:
                self._run()
            except LeaseLost:
                logger.warning("lost the lease of %s attempt %d; nothing of it is published", *self._names())
            except GaveUpWaiting as error:
                logger.warning("%s attempt %d ends where the database has it, without %s", *self._names(), error)
            finally:
                self._recorder.close()
                shutil.rmtree(self._folder, ignore_errors=True)
        return self._settlement.took

    def _run(self) -> None:
        try:
            self._attempt()
        except LeaseLost:
            raise
        except GaveUpWaiting as error:
            logger.warning("%s attempt %d is given back, without %s", *self._names(), error)
            self._settlement.give_back()
        except Exception as error:
            logger.exception("supervising %s attempt %d failed", *self._names())
            self._settlement.settle_error(error)

    def _attempt(self) -> None:
        self._folder.mkdir(parents=True)
        access, fence = self._access, self._fence
        noted = access.in_database(lambda session: jobs.noted_revisions(session, fence.job_id))
        fetcher = InputFetcher(
            self._spec,
            self._folder,
            access=access,
            cache=self._networks,
            data_cache=self._data,
            roots=self._settings.file_roots,
            urls=self._settings.data_urls,
            token=lambda: hub_token(access, self._claim.job.owner_id, self._settings),
            on_poll=self._on_fetch_poll,
            revisions=noted,
        )
        with fetcher:
            try:
                inputs = fetcher.fetch()
            except NotFound as error:
                self._settlement.fail(JobFailure(code="input_unavailable", message=error.detail))
            except SourceRefused as refused:
                self._settlement.fail(unavailable(refused))
            except _TimeIsUp:
                self._settlement.fail_by_time_limit("Its data or its networks were being fetched.")
            except HubAway as away:
                self._settlement.lose(JobFailure(code="input_unavailable", message=away.message, hint=away.hint))
            else:
                if inputs.revisions:
                    access.write(fence, lambda session: jobs.note_revisions(session, fence, inputs.revisions))
                self._fetch_checkpoint()
                self._train(inputs)

    def _train(self, inputs: Inputs) -> None:
        grace_seconds = self._settings.stop_grace_seconds
        self._trainer = self._executor.start(self._assignment(inputs))
        ending = follow(
            self._trainer,
            on_event=self._recorder.take,
            on_poll=self._on_poll,
            wanted_stop=self._wanted_stop,
            grace_seconds=grace_seconds,
        )
        if ending.killed:
            self._recorder.log.note(f"the trainer did not stop within {grace_seconds:g} s and was killed")
        self._recorder.write()
        self._settlement.settle(ending)

    def _assignment(self, inputs: Inputs) -> Assignment:
        devices = tuple("cpu" if name.startswith("cpu") else name for name in self._claim.devices)
        return Assignment(
            job_id=self._fence.job_id,
            spec=self._spec,
            folder=self._folder,
            inputs=inputs.paths,
            revisions=inputs.revisions,
            placement=(HostDevices(self._host, devices),),
            cache=self._settings.teacher_cache_folder,
            num_threads=self._num_threads,
            num_loaders=self._settings.loaders_of(self._num_threads // len(devices)),
        )

    def _fetch_checkpoint(self) -> None:
        row = self._access.in_database(lambda session: session.get(Artifact, (self._fence.job_id, CHECKPOINT_FILE)))
        if row is None:
            return
        target = self._folder / CHECKPOINT_FILE
        try:
            self._access.in_store(lambda: self._store.fetch(row.path, target, sha256=row.sha256))
        except NotFound as error:
            self._recorder.log.note(f"the checkpoint cannot be used, the job starts over: {error.detail}")

    # ------------------------------------------------------------ while it runs

    def _on_poll(self) -> None:
        self._access.require_lease()  # also one that was lost before there was a trainer to kill
        self._recorder.write_if_due()
        self._settlement.memory_kills.look()

    def _on_fetch_poll(self) -> None:
        self._access.require_lease()
        stop = self._wanted_stop()
        if stop is not None and stop.reason == "time_limit":
            raise _TimeIsUp
        if stop is not None:
            raise GaveUpWaiting("the data and the networks that it names")

    def _wanted_stop(self) -> StopRequest | None:
        renewal = self._lease.renewal
        if renewal.stop_requested == "cancel":
            return StopRequest("cancel", keep=renewal.stop_keep or "last")  # type: ignore[arg-type]
        if renewal.stop_requested == "pause":
            return StopRequest("pause")
        if renewal.stop_requested == "preempt":
            return StopRequest("preempt")
        limit = self._spec["resources"]["max_runtime_seconds"]
        if self._claim.job.run_seconds + time.monotonic() - self._started > limit:
            return StopRequest("time_limit")
        if self._leaving():
            return StopRequest("drain")
        return None

    def _kill(self) -> None:
        if self._trainer is not None:
            self._trainer.kill()

    def _names(self) -> tuple[str, int]:
        return self._fence.job_id, self._fence.attempt


def unavailable(refused: SourceRefused) -> JobFailure:
    """The failure of a job that names a network or data which cannot be had."""
    details = {} if refused.pointer is None else {"pointer": refused.pointer}
    return JobFailure(code=refused.code, message=refused.message, hint=refused.hint, details=details)
