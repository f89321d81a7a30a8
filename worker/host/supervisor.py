"""One attempt at one job, as the host runs it: inputs, trainer, lease, record, artifacts, settlement.

Every write is fenced by the attempt. Once the lease is lost the trainer is killed and nothing is published: files that this
attempt wrote to the store stay under its own prefix, which no row names.
"""

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service import jobs
from service.database import Database
from service.errors import JobFailure, NotFound
from service.ids import new_id
from service.lifecycle import Outcome
from service.model_folder import inspect_folder
from service.scheduling import Claim
from service.settings import Settings
from service.store import Store, StoredFile
from service.tables import Artifact, Model
from worker.host.inputs import InputFetcher
from worker.host.lease import Lease
from worker.host.record import LogTail, ProgressFormatter, Record, remaining_seconds
from worker.host.trainer_process import TrainerProcess
from worker.protocol import (
    CHECKPOINT_FILE,
    LOG_FILE,
    RESULT_FOLDER,
    STUDENT_PREFIX,
    Assignment,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    PhaseStarted,
    Progress,
    Stopped,
    StopRequest,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

_POLL_SECONDS = 0.2
_DATABASE_RETRY_SECONDS = 1.0
_STORE_RETRY_SECONDS = 1.0
_STORE_PATIENCE_SECONDS = 600.0


class LeaseLost(Exception):
    """Another attempt may hold the job: nothing may be published."""


class Supervisor:
    """The parent of one trainer. ``leaving`` tells whether the worker drains, so that the job goes back to the queue."""

    def __init__(
        self,
        claim: Claim,
        *,
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
        self._database = database
        self._store = store
        self._settings = settings
        self._num_threads = num_threads
        self._leaving = leaving
        self._folder = scratch / f"{claim.fence.job_id}-{claim.fence.attempt}"
        self._prefix = f"jobs/{claim.fence.job_id}/{claim.fence.attempt}"
        self._log = LogTail(self._folder / LOG_FILE)
        self._record = Record()
        self._formatter = ProgressFormatter()
        self._steps: dict[str, int] = (claim.job.estimate or {}).get("steps", {})
        self._started = time.monotonic()
        self._trainer: TrainerProcess | None = None

    def run(self) -> None:
        """Runs the attempt to its end and settles it."""
        lease_seconds = self._settings.lease_seconds
        lease = Lease(
            self._database,
            self._fence.job_id,
            lambda session: jobs.renew_lease(session, self._fence, lease_seconds=lease_seconds),
            heartbeat_seconds=self._settings.heartbeat_seconds,
            lease_seconds=lease_seconds,
            on_loss=self._kill,
        )
        with lease:
            self._lease = lease
            try:
                self._attempt()
            except LeaseLost:
                logger.warning("lost the lease of %s attempt %d; nothing of it is published", *self._names())
            except Exception as error:
                logger.exception("supervising %s attempt %d failed", *self._names())
                self._settle_unexpected(error)
            finally:
                self._kill()
                if self._trainer is not None:
                    self._trainer.exit_code()
                shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self) -> None:
        self._folder.mkdir(parents=True)
        try:
            inputs = InputFetcher(
                self._spec, self._folder, store=self._store, in_database=self._in_database, in_store=self._in_store
            ).fetch()
        except NotFound as error:
            self._settle_failure(JobFailure(code="input_unavailable", message=error.detail), retryable=False)
            return
        self._fetch_checkpoint()
        self._trainer = TrainerProcess(
            Assignment(
                job_id=self._fence.job_id,
                spec=self._spec,
                folder=self._folder,
                inputs=inputs,
                devices=tuple("cpu" if name.startswith("cpu") else name for name in self._claim.devices),
                cache=self._settings.teacher_cache_folder,
                num_threads=self._num_threads,
            )
        )
        if self._lease.lost:  # lost before there was a trainer to kill
            raise LeaseLost
        self._settle(*self._follow(self._trainer))

    # ------------------------------------------------------------ inputs

    def _fetch_checkpoint(self) -> None:
        row = self._in_database(lambda session: session.get(Artifact, (self._fence.job_id, CHECKPOINT_FILE)))
        if row is None:
            return
        try:
            self._in_store(lambda: self._store.fetch(row.path, self._folder / CHECKPOINT_FILE, sha256=row.sha256))
        except NotFound as error:
            self._log.note(f"the checkpoint cannot be used, the job starts over: {error.detail}")

    # ------------------------------------------------------------ while it runs

    def _follow(self, trainer: TrainerProcess) -> tuple[Event | None, StopRequest | None, bool]:
        """Follows the trainer to its end: its last event, the stop that was requested, and whether it was killed late."""
        final_event: Event | None = None
        asked: StopRequest | None = None
        kill_at = float("inf")
        killed = False
        while not trainer.ended:
            for event in trainer.events(timeout_seconds=_POLL_SECONDS):
                self._record.take(event)
                if isinstance(event, Finished | Failed | Stopped):
                    final_event = event
            if self._lease.lost:
                raise LeaseLost
            wanted = self._wanted_stop()
            if wanted is not None and (asked is None or (asked.reason != wanted.reason and wanted.reason == "cancel")):
                trainer.ask_to_stop(wanted)
                asked = wanted
                kill_at = time.monotonic() + self._settings.stop_grace_seconds
            if time.monotonic() > kill_at and not killed:
                self._log.note(f"the trainer did not stop within {self._settings.stop_grace_seconds:g} s and was killed")
                trainer.kill()
                killed = True
            if self._record.due:
                self._flush()
        trainer.exit_code()  # reaped: from here on its pid may be reused
        self._flush()
        return final_event, asked, killed

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

    def _remaining(self, event: PhaseStarted | Progress) -> float | None:
        return remaining_seconds(self._steps, event) if isinstance(event, Progress) else None

    def _flush(self) -> None:
        """Flushes the record: a checkpoint first to the store, then everything in one transaction."""
        record, self._record = self._record, self._record.next()
        checkpoint = self._store_checkpoint(record.checkpoint) if record.checkpoint else None
        addition = self._log.read()
        reported = [(*self._formatter.format(event), self._remaining(event)) for event in record.steps]

        def write(session: Session) -> tuple[Outcome, str | None]:
            outcome, replaced = Outcome.APPLIED, None
            for progress, milestone, remaining in reported:
                outcome = jobs.record_progress(session, self._fence, progress, milestone=milestone, remaining_seconds=remaining)
            for warning in record.warnings:
                outcome = jobs.record_warning(session, self._fence, code=warning.code, message=warning.message)
            if record.points:
                outcome = jobs.record_metrics(session, self._fence, record.points)
            if addition:
                outcome = jobs.append_log(session, self._fence, addition)
            if checkpoint is not None and record.checkpoint is not None:
                outcome, replaced = jobs.record_checkpoint(
                    session, self._fence, checkpoint, phase=record.checkpoint.phase, step=record.checkpoint.step
                )
            return outcome, replaced

        outcome, replaced = self._in_database(write)
        if outcome is Outcome.LEASE_LOST:
            raise LeaseLost
        if replaced is not None:
            try:
                self._store.remove([replaced])
            except OSError as error:
                logger.warning("the replaced checkpoint %s stays in the store: %s", replaced, error)

    def _store_checkpoint(self, event: CheckpointWritten) -> StoredFile:
        # A second name for the same bytes: the trainer may replace the file while it is copied.
        steady = self._folder / f"upload-{CHECKPOINT_FILE}"
        steady.unlink(missing_ok=True)
        os.link(self._folder / CHECKPOINT_FILE, steady)
        key = f"{self._prefix}/{event.phase}-{event.step}-{time.time_ns()}-{CHECKPOINT_FILE}"
        return self._in_store(lambda: self._store.put(steady, key, name=CHECKPOINT_FILE))

    # ------------------------------------------------------------ the end

    def _settle(self, final_event: Event | None, asked: StopRequest | None, killed: bool) -> None:
        assert self._trainer is not None
        match final_event:
            case Finished(result=result):
                self._publish_success(result)
            case Stopped(reason="time_limit"):
                self._settle_time_limit("The student as far as it came is an artifact.")
            case Stopped(reason=reason):
                files = self._store_result() if reason == "cancel" else []
                model = self._model(files)
                self._finally(lambda session: jobs.settle_stopped(session, self._fence, reason=reason, files=files, model=model))
            case Failed() as failed:
                failure = JobFailure(code=failed.code, message=failed.message, hint=failed.hint, details=failed.details)
                self._settle_failure(failure, retryable=failed.retryable)
            case _ if killed and asked is not None and asked.reason == "time_limit":
                self._settle_time_limit("It did not stop in time to keep its student.")
            case _ if killed and asked is not None:
                reason = asked.reason
                self._finally(lambda session: jobs.settle_stopped(session, self._fence, reason=reason))
            case _:
                self._settle_failure(self._crash(self._trainer.exit_code()), retryable=True)

    def _settle_time_limit(self, what_is_left: str) -> None:
        limit = self._spec["resources"]["max_runtime_seconds"]
        failure = JobFailure(
            code="time_limit",
            message=f"the job ran longer than its {limit} s",
            hint=f"Raise resources.max_runtime_seconds and submit again. {what_is_left}",
        )
        files = self._store_result()
        self._settle_failure(failure, retryable=False, files=files, model=self._model(files))

    def _publish_success(self, result: dict[str, Any]) -> None:
        files = self._store_result()
        model = self._model(files)
        if model is None:
            raise RuntimeError("a trainer that has finished leaves a student")
        self._finally(lambda session: jobs.succeed(session, self._fence, result=result, files=files, model=model))

    def _model(self, files: Sequence[StoredFile]) -> Model | None:
        """The student among ``files`` as a model row; None if there is no student."""
        student = [file for file in files if file.name.startswith(STUDENT_PREFIX)]
        if not student:
            return None
        names = [file.name.removeprefix(STUDENT_PREFIX) for file in student]
        info = inspect_folder(self._folder / RESULT_FOLDER / STUDENT_PREFIX, [Path(name) for name in names])
        job = self._claim.job
        return Model(
            id=new_id("model"),
            owner_id=job.owner_id,
            name=job.name or job.id,
            task=self._spec["task"],
            job_id=job.id,
            classes=info.classes,
            input_shape=info.input_shape,
            files=[
                {"name": name, "path": file.path, "size": file.size, "sha256": file.sha256, "media_type": file.media_type}
                for name, file in zip(names, student, strict=True)
            ],
        )

    def _store_result(self) -> list[StoredFile]:
        folder = self._folder / RESULT_FOLDER
        files = self._in_store(lambda: self._store.put_folder(folder, self._prefix)) if folder.exists() else []
        return [*files, *self._store_log()]

    def _store_log(self) -> list[StoredFile]:
        """Stores the whole log, with that of earlier attempts."""
        text = self._in_database(lambda session: jobs.log_text(session, self._fence.job_id))
        if not text:
            return []
        whole = self._folder / "whole-log.txt"
        whole.write_text(text)
        return [self._in_store(lambda: self._store.put(whole, f"{self._prefix}/{LOG_FILE}", name=LOG_FILE))]

    def _settle_failure(
        self, failure: JobFailure, *, retryable: bool, files: Sequence[StoredFile] = (), model: Model | None = None
    ) -> None:
        if not failure.details.get("log_tail") and (tail := self._log.tail()):
            failure = failure.model_copy(update={"details": {**failure.details, "log_tail": tail}})
        files = files or self._store_log()
        if retryable:
            self._finally(lambda session: jobs.crash(session, self._fence, failure, files=files))
        else:
            self._finally(lambda session: jobs.fail(session, self._fence, failure, files=files, model=model))

    def _settle_unexpected(self, error: Exception) -> None:
        code = "artifacts_unavailable" if isinstance(error, OSError | NotFound) else "trainer_error"
        failure = JobFailure(code=code, message=f"{type(error).__name__}: {error}", hint="The worker's log has the details.")
        try:
            self._in_database(lambda session: jobs.crash(session, self._fence, failure))
        except LeaseLost:
            logger.warning("lost the lease of %s attempt %d as well", *self._names())

    def _crash(self, exit_code: int) -> JobFailure:
        if exit_code == -signal.SIGKILL:
            return JobFailure(
                code="out_of_memory",
                message="the trainer was killed (SIGKILL), as the kernel does when memory runs out",
                hint="Use a smaller batch_size or network, or a host with more memory; or somebody killed it by hand.",
                details={"exit_code": exit_code},
            )
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        return JobFailure(
            code="trainer_crashed",
            message=f"the trainer ended {how}, without a result",
            hint="The log's last lines often say why.",
            details={"exit_code": exit_code},
        )

    # ------------------------------------------------------------ the database, while the lease lasts

    def _finally(self, settle: Callable[[Session], Outcome]) -> None:
        if self._in_database(settle) is Outcome.LEASE_LOST:
            raise LeaseLost

    def _in_database(self, work: Callable[[Session], T]) -> T:
        """Repeats a transaction until the database is available or the lease is lost."""
        while True:
            try:
                with self._database.transaction() as session:
                    return work(session)
            except SQLAlchemyError as error:
                if not _is_outage(error):
                    raise
                logger.warning("%s waits for the database: %s", self._fence.job_id, error)
                if self._lease.lost:
                    raise LeaseLost from error
                time.sleep(_DATABASE_RETRY_SECONDS)

    def _in_store(self, work: Callable[[], T]) -> T:
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
                logger.warning("%s waits for the store: %s", self._fence.job_id, error)
                time.sleep(_STORE_RETRY_SECONDS)

    def _kill(self) -> None:
        if self._trainer is not None:
            self._trainer.kill()

    def _names(self) -> tuple[str, int]:
        return self._fence.job_id, self._fence.attempt


def _is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database was unavailable rather than refused a statement."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )
