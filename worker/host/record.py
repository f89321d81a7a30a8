"""What a trainer emitted since the last write, in the form in which the database records it."""

import codecs
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from worker.protocol import (
    CheckpointWritten,
    Event,
    MetricPoints,
    Noted,
    Part,
    Phase,
    PhaseStarted,
    Progress,
    Warned,
)

_FLUSH_SECONDS = 1.0
_LOG_TAIL_CHARACTERS = 2000


class Record:
    """The events of a trainer since the last flush. ``reported`` is the phase whose progress was reported before it."""

    def __init__(self, *, reported: Phase | None = None, flushed_at: float = 0.0) -> None:
        self.steps: list[PhaseStarted | Progress] = []
        """In their order; of the progress of one phase, only the newest."""
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.checkpoint: CheckpointWritten | None = None
        self.told: list[Warned | Noted] = []
        self._urgent = False
        self._reported, self._flushed_at = reported, flushed_at

    def take(self, event: Event) -> None:
        match event:
            case PhaseStarted():
                self.steps.append(event)
                self._urgent = True
            case Progress():
                if self.steps and isinstance(self.steps[-1], Progress) and self.steps[-1].phase == event.phase:
                    self.steps.pop()
                self.steps.append(event)
                self._urgent = self._urgent or self._reported != event.phase
                self._reported = event.phase
            case MetricPoints(points=points):
                for name, series in points.items():
                    self.points.setdefault(name, []).extend((step, value) for step, value in series)
            case CheckpointWritten():
                self.checkpoint = event
            case Warned() | Noted():
                self.told.append(event)
                self._urgent = True

    @property
    def due(self) -> bool:
        """Whether to flush now: at once for a new phase and its first step, otherwise once a second."""
        return self._urgent or time.monotonic() - self._flushed_at >= _FLUSH_SECONDS

    def next(self) -> "Record":
        """An empty record, for the events after this one."""
        return Record(reported=self._reported, flushed_at=time.monotonic())


class ProgressFormatter:
    """Formats progress for the database: as the job's ``progress`` and, for a milestone, as the message of an event row.

    Milestones are the start, the first and the last step of each phase, and at most one step a second and one a percent between.
    """

    def __init__(self) -> None:
        self._phase: PhaseStarted | None = None
        self._reported: Progress | None = None
        self._reported_at = 0.0

    def format(self, event: PhaseStarted | Progress) -> tuple[dict[str, Any], str | None]:
        if isinstance(event, PhaseStarted):
            self._phase = event
            return self._progress(Progress(event.phase, 0, 0, 0, None, None)), event.message
        return self._progress(event), self._milestone(event)

    def _progress(self, progress: Progress) -> dict[str, Any]:
        return {
            "phase": progress.phase,
            "message": self._phase.message if self._phase is not None and self._phase.phase == progress.phase else None,
            "step": progress.step,
            "total_steps": progress.total_steps or None,
            "epoch": progress.epoch or None,
            "fraction": progress.step / progress.total_steps if progress.total_steps else 0.0,
            "samples_per_second": progress.samples_per_second,
            "eta_seconds": progress.eta_seconds,
        }

    def _milestone(self, progress: Progress) -> str | None:
        reported, now = self._reported, time.monotonic()
        new = reported is None or reported.phase != progress.phase or progress.step == progress.total_steps
        if not new and reported is not None:
            percent = progress.total_steps / 100
            if now - self._reported_at < 1.0 or progress.step - reported.step < percent:
                return None
        self._reported, self._reported_at = progress, now
        return f"step {progress.step} of {progress.total_steps}"


class LogTail:
    """Reads what the trainer has printed since the last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a read may end inside a character
        self._notes = ""

    def note(self, line: str) -> None:
        """Adds a line of the supervisor's own."""
        self._notes += f"[supervisor] {line}\n"

    def read(self) -> str:
        notes, self._notes = self._notes, ""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return notes
        self._offset += len(data)
        return self._decoder.decode(data).replace("\0", "�") + notes

    def tail(self) -> str:
        """The last lines, for an error message."""
        try:
            return self._path.read_bytes()[-_LOG_TAIL_CHARACTERS:].decode(errors="replace").replace("\0", "�")
        except FileNotFoundError:
            return ""


def remaining_seconds(steps: Mapping[str, int], progress: Progress) -> float | None:
    """Estimated seconds until the whole job ends; None if ``progress`` has no ETA.

    ``steps`` are the optimizer steps of each part by the preflight's estimate; empty for a job that was not checked.
    """
    if progress.part is None or progress.eta_seconds is None or progress.step >= progress.total_steps:
        return None
    left_here = progress.total_steps - progress.step
    left = max(left_here, steps.get(progress.part, 0) - progress.earlier_steps - progress.step)
    parts = get_args(Part)
    left += sum(steps.get(later, 0) for later in parts[parts.index(progress.part) + 1 :])
    return left * progress.eta_seconds / left_here
