"""Records a running attempt: its events and its log in the database, its checkpoints in the store first.

Writes are made on a thread of their own, one after the other: the trainer and its stops wait for no part that is away.
"""

import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.orm import Session

from service import jobs
from service.lifecycle import Outcome
from service.part_errors import log_failure
from service.scheduling import Claim
from service.store import StoredFile
from worker.host.access import LeasedAccess, attempt_prefix
from worker.host.record import LogTail, ProgressFormatter, Record, remaining_seconds
from worker.protocol import CHECKPOINT_FILE, LOG_FILE, CheckpointWritten, Event, PhaseStarted, Progress, Warned

logger = logging.getLogger(__name__)


class Recorder:
    """What the attempt of ``claim`` emitted and printed since the last write, and the next write."""

    def __init__(self, claim: Claim, folder: Path, access: LeasedAccess) -> None:
        self.log = LogTail(folder / LOG_FILE)
        self._folder, self._access, self._fence = folder, access, claim.fence
        self._record = Record()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"record {claim.fence.job_id}")
        self._writing: Future[None] | None = None
        self._formatter = ProgressFormatter()
        self._steps: dict[str, int] = (claim.job.estimate or {}).get("steps", {})

    def take(self, event: Event) -> None:
        """Keeps an event for the next write."""
        self._record.take(event)

    def write_if_due(self) -> None:
        """Begins a write about once a second, and at once for a new phase. Raises what the last write raised."""
        if self._writing is not None and not self._writing.done():
            return
        self._finish()
        if self._record.due:
            self._writing = self._thread.submit(self._write, self._take_record())

    def write(self) -> None:
        """Writes all that is left. Raises LeaseLost."""
        self._finish()
        self._write(self._take_record())

    def close(self) -> None:
        """Waits for a write that was begun."""
        self._thread.shutdown()

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _take_record(self) -> Record:
        record, self._record = self._record, self._record.next()
        return record

    def _write(self, record: Record) -> None:
        """Writes a checkpoint to the store, then everything in one transaction."""
        fence = self._fence
        checkpoint = self._store_checkpoint(record.checkpoint) if record.checkpoint else None
        addition = self.log.read()
        reported = [(*self._formatter.format(event), self._remaining(event)) for event in record.steps]
        replaced: set[str] = set()
        """What any try replaced: after one that may have been committed, the next finds its own."""

        def write(session: Session) -> Outcome:
            outcome = Outcome.APPLIED
            if addition:  # first: it reads, and what is not written yet would be written before that
                outcome = jobs.append_log(session, fence, addition)
            for progress, milestone, remaining in reported:
                outcome = jobs.record_progress(session, fence, progress, milestone=milestone, remaining_seconds=remaining)
            for told in record.told:
                record_told = jobs.record_warning if isinstance(told, Warned) else jobs.record_note
                outcome = record_told(session, fence, code=told.code, message=told.message)
            if record.points:
                outcome = jobs.record_metrics(session, fence, record.points)
            if checkpoint is not None and record.checkpoint is not None:
                outcome, before = jobs.record_checkpoint(
                    session, fence, checkpoint, phase=record.checkpoint.phase, step=record.checkpoint.step
                )
                if before is not None:
                    replaced.add(before)
            return outcome

        self._access.write(fence, write)
        if replaced:
            try:
                self._access.store.remove(replaced)
            except Exception as error:  # noqa: BLE001 - the sweep removes it once the job has ended
                log_failure(logger, f"the replaced checkpoint {', '.join(replaced)} stays in the store", error)

    def _remaining(self, event: PhaseStarted | Progress) -> float | None:
        return remaining_seconds(self._steps, event) if isinstance(event, Progress) else None

    def _store_checkpoint(self, event: CheckpointWritten) -> StoredFile:
        # A second name for the same bytes: the trainer may replace the file while it is copied.
        steady = self._folder / f"upload-{CHECKPOINT_FILE}"
        steady.unlink(missing_ok=True)
        os.link(self._folder / CHECKPOINT_FILE, steady)
        key = f"{attempt_prefix(self._fence)}/{event.phase}-{event.step}-{time.time_ns()}-{CHECKPOINT_FILE}"
        return self._access.in_store(lambda: self._access.store.put(steady, key, name=CHECKPOINT_FILE))
