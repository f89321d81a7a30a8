"""What a trainer is given and what it says: one :class:`Assignment`, then :data:`Event` lines on one pipe.

The pipe carries one JSON object a message in both directions, never a pickle. The trainer sends events; the supervisor sends
:class:`StopRequest` alone, and closing the pipe tells the trainer to end at once. Of a trainer on several devices, a rank each,
the first speaks for all; any may say that it failed.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Phase = Literal["checking", "teacher", "cache", "student", "control", "evaluation", "export"]
"""``checking``: of a job that is only checked. ``cache``: the teacher's outputs on the training split are computed, once for all
epochs."""
Part = Literal["teacher", "student", "control", "repeats"]
"""Of a job's trainings, in their order. ``teacher``: all before the student; ``repeats``: student and control of other seeds."""
StopReason = Literal["cancel", "pause", "drain", "preempt", "time_limit"]

CHECKPOINT_FILE = "checkpoint.safetensors"
"""The last checkpoint, in the assignment's folder; found there at the start, the trainer resumes from it."""
RESULT_FOLDER = "result"
"""The finished job's artifacts, in the assignment's folder, by the names that they have over HTTP."""
STUDENT_PREFIX = "student/"
"""Begins the names of the student's files among the artifacts."""
LOG_FILE = "log.txt"
"""Everything that the trainer prints, in the assignment's folder."""


@dataclass(frozen=True)
class Assignment:
    """One attempt at one job."""

    job_id: str
    spec: dict[str, Any]
    """The normalised job spec."""
    folder: Path
    """Scratch, the trainer's own; holds the checkpoint to resume from, if there is one."""
    inputs: dict[str, Path] = field(default_factory=dict)
    """Local path of each source that the spec names: ``dataset:ID`` a file, ``job:ID`` and ``model:ID`` a folder."""
    devices: tuple[str, ...] = ("cpu",)
    """One a rank, ``cpu`` or ``cuda:N`` each: so many processes train side by side."""
    cache: Path | None = None
    """Folder of teachers' outputs that outlives the job; None keeps nothing."""
    num_threads: int | None = None
    """CPU threads of tensor operations, of all ranks together; None leaves torch's own choice."""
    check_only: bool = False
    """Whether the job is only tried, one step of each training, on the CPU; the last event is :class:`Checked` then."""
    planned: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of a check: by source, the normalised spec of a job whose student is to teach and is not there yet."""
    most_bytes: int | None = None
    """Of a check: what its networks may take of this host's memory; None where that is not known."""


@dataclass(frozen=True)
class PhaseStarted:
    """A part of the work begins. ``message`` says what it does, for people."""

    phase: Phase
    message: str
    type: Literal["phase_started"] = "phase_started"


@dataclass(frozen=True)
class Progress:
    """How far the current phase is; sent at most a few times a second, and at its first and last step."""

    phase: Phase
    step: int
    """Optimizer steps done in this phase, those of earlier attempts included."""
    total_steps: int
    epoch: int
    """The epoch that the step belongs to, from 1."""
    samples_per_second: float | None
    eta_seconds: float | None
    part: Part | None = None
    """The part of the job that the steps are of; None for what is no training."""
    earlier_steps: int = 0
    """Optimizer steps of the networks of that part that were trained before, in whatever attempt."""
    type: Literal["progress"] = "progress"


@dataclass(frozen=True)
class MetricPoints:
    """Measured values: ``points`` holds, by metric name (``student/train_loss``), a list of (step, value)."""

    points: dict[str, list[tuple[int, float]]]
    type: Literal["metric_points"] = "metric_points"


@dataclass(frozen=True)
class CheckpointWritten:
    """``CHECKPOINT_FILE`` was replaced, whole and synced to disk."""

    phase: Phase
    step: int
    type: Literal["checkpoint_written"] = "checkpoint_written"


@dataclass(frozen=True)
class Finished:
    """The job is done and ``RESULT_FOLDER`` complete."""

    result: dict[str, Any]
    """The report card's headline figures."""
    type: Literal["finished"] = "finished"


@dataclass(frozen=True)
class Checked:
    """The job can be trained, as far as one step of each of its trainings can tell."""

    estimate: dict[str, Any]
    """What it will take: ``service.spec.estimate.Estimate`` as JSON."""
    type: Literal["checked"] = "checked"


@dataclass(frozen=True)
class Stopped:
    """The trainer stopped because it was asked to. What ``keep`` asked for is in place."""

    reason: StopReason
    type: Literal["stopped"] = "stopped"


@dataclass(frozen=True)
class Failed:
    """The job itself is at fault (``code`` of ``service.errors.FAILURE_CODES``); ``retryable`` for what another try may mend."""

    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    retryable: bool = False
    type: Literal["failed"] = "failed"


Event = PhaseStarted | Progress | MetricPoints | CheckpointWritten | Finished | Checked | Stopped | Failed

_EVENTS: dict[str, type[Event]] = {
    "phase_started": PhaseStarted,
    "progress": Progress,
    "metric_points": MetricPoints,
    "checkpoint_written": CheckpointWritten,
    "finished": Finished,
    "checked": Checked,
    "stopped": Stopped,
    "failed": Failed,
}


@dataclass(frozen=True)
class StopRequest:
    """Asks the trainer to stop at the next step.

    Every reason but ``cancel`` writes a checkpoint first. A cancel and a time limit write ``RESULT_FOLDER`` with the student as
    ``keep`` names it (the best by validation so far, the last, or nothing), so that what was trained is not lost.
    """

    reason: StopReason
    keep: Literal["best", "last", "none"] = "last"


class Reporter(Protocol):
    """Where a trainer's events go: the supervisor's pipe, or the terminal when it runs alone."""

    def emit(self, event: Event) -> None:
        """Sends one event."""

    def stop_request(self) -> StopRequest | None:
        """The stop that was asked for, if any; cheap enough to ask at every step."""


def encode(message: Event | StopRequest) -> bytes:
    """One message as JSON. NaN and infinity are refused: a metric that is not finite is an error, not a point."""
    return json.dumps(dataclasses.asdict(message), allow_nan=False).encode()


def decode_event(data: bytes) -> Event:
    """Reads what :func:`encode` wrote for an event."""
    fields = json.loads(data)
    return _EVENTS[fields["type"]](**fields)


def decode_stop(data: bytes) -> StopRequest:
    """Reads what :func:`encode` wrote for a stop request."""
    return StopRequest(**json.loads(data))
