"""The callback of a training: progress, metric points, checkpoints and requests to stop, between two optimizer steps.

Invariant: metric points are emitted before a checkpoint is written without them, so a killed job repeats points but never
loses one.
"""

import time
from collections.abc import Callable
from dataclasses import asdict

from service.spec.warning_message import WarningMessage
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import StopAsked
from worker.protocol import MetricPoints, Part, Progress, Reporter, StopRequest
from worker.training.loop import Training

_PROGRESS_SECONDS = 0.25


class TrainingReporter:
    """Reports one training of one attempt, of a ``part`` whose earlier networks took ``earlier_steps`` steps."""

    def __init__(
        self,
        reporter: Reporter,
        *,
        write_checkpoint: Callable[[], None],
        group: ProcessGroup = SINGLE_PROCESS,
        warn: Callable[[WarningMessage], None] = lambda warning: None,
        part: Part | None = None,
        earlier_steps: int = 0,
    ) -> None:
        self._reporter, self._write_checkpoint, self._group, self._warn = reporter, write_checkpoint, group, warn
        self._part, self._earlier_steps = part, earlier_steps
        self._started_at = self._checkpoint_at = time.monotonic()
        self._first_step: int | None = None
        self._next_progress_at = 0.0

    def on_step_end(self, training: Training) -> None:
        """Emits progress and writes the checkpoint when they are due. Raises :class:`StopAsked` if a stop was requested."""
        now = time.monotonic()
        for warning in training.savings.take_warnings():
            self._warn(warning)
        if self._first_step is None:
            # Rates exclude the first step, which allocates memory and chooses kernels.
            self._first_step, self._started_at = training.step, now
        if now >= self._next_progress_at or training.done:
            self._next_progress_at = now + _PROGRESS_SECONDS
            self._report_progress(training, now)

        stop, writes_checkpoint = self._decide(training, now)
        if stop is None and not writes_checkpoint:
            return
        training.read_losses()
        self._emit_points(training)
        if stop is not None:
            raise StopAsked(stop)
        self._write_checkpoint()
        self._checkpoint_at = time.monotonic()

    def _decide(self, training: Training, now: float) -> tuple[StopRequest | None, bool]:
        """Whether to stop, and whether to write a checkpoint: as rank 0 decides, in one message, for both are collectives."""
        own = self._reporter.stop_request()
        is_due = not training.done and self._is_checkpoint_due(training, now)
        stop, writes_checkpoint = self._group.broadcast_from_rank0((None if own is None else asdict(own), is_due))
        return None if stop is None else StopRequest(**stop), writes_checkpoint

    def _is_checkpoint_due(self, training: Training, now: float) -> bool:
        interval = training.spec.checkpoint_steps
        by_steps = interval is not None and training.step % interval == 0
        return by_steps or now - self._checkpoint_at >= training.spec.checkpoint_seconds

    def _report_progress(self, training: Training, now: float) -> None:
        training.read_losses()
        self._emit_points(training)
        steps, seconds = training.step - (self._first_step or 0), now - self._started_at
        steps_per_second = steps / seconds if steps and seconds > 0 else None
        samples_per_step = training.samples_per_epoch / training.steps_per_epoch
        self._reporter.emit(
            Progress(
                phase=training.phase,
                step=training.step,
                total_steps=training.last_step,
                epoch=training.epoch,
                samples_per_second=steps_per_second * samples_per_step if steps_per_second else None,
                eta_seconds=(training.last_step - training.step) / steps_per_second if steps_per_second else None,
                part=self._part,
                earlier_steps=self._earlier_steps,
            )
        )

    def _emit_points(self, training: Training) -> None:
        points = training.take_points()
        if points:
            self._reporter.emit(MetricPoints(points=points))
