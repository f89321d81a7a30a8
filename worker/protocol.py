"""The protocol between supervisor and trainer: one :class:`Assignment`, then :data:`Event` messages on one pipe.

Each message is one JSON object, in both directions, never a pickle. The trainer sends events; the supervisor sends
:class:`StopRequest` alone, and a closed pipe makes the trainer exit at once. Of a trainer's ranks, one per device, rank 0 sends
all events; any other rank may send :class:`Failed`.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Phase = Literal["checking", "teacher", "cache", "student", "control", "evaluation", "export"]
"""``checking``: the preflight check of a job. ``cache``: the teacher's outputs on the training split are computed, once for all
epochs."""
Part = Literal["teacher", "student", "control", "repeats"]
"""The parts of a job's trainings. ``teacher``: all before the student; ``repeats``: student and control of other seeds."""
StopReason = Literal["cancel", "pause", "drain", "preempt", "time_limit", "signal"]
"""``signal``: the trainer itself was sent SIGTERM."""

CHECKPOINT_FILE = "checkpoint.safetensors"
"""The last checkpoint, in the assignment's folder; the trainer resumes from it if it is there at the start."""
RESULT_FOLDER = "result"
"""The folder of a finished job's artifacts, in the assignment's folder, by their names over HTTP."""
STUDENT_FOLDER = "student"
"""The folder of the student's files among the artifacts."""
LOG_FILE = "log.txt"
"""The trainer's log, in the assignment's folder."""
LOCALHOST = "localhost"
"""The host that an executor runs on, whatever its name is."""


@dataclass(frozen=True)
class HostDevices:
    """The devices that an attempt has on one host: one per rank, ``cpu`` or ``cuda:N`` each."""

    host: str = LOCALHOST
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True)
class Assignment:
    """One attempt at one job."""

    job_id: str
    spec: dict[str, Any]
    """The normalised job spec."""
    folder: Path
    """The trainer's own scratch folder, with the checkpoint to resume from, if there is one."""
    inputs: dict[str, Path] = field(default_factory=dict)
    """Local path of each source that the spec names: of data a file, of a network a folder, which is for reading alone."""
    revisions: dict[str, str] = field(default_factory=dict)
    """By source of a network, what its folder was resolved to: the commit of one of the Hub, or a digest of the files."""
    placement: tuple[HostDevices, ...] = (HostDevices(),)
    """Where its ranks run, in their order."""
    cache: Path | None = None
    """The folder of the teacher cache, which outlives the job; None for no cache."""
    num_threads: int | None = None
    """CPU threads of tensor operations, over all ranks; None for torch's default."""
    num_loaders: int | None = None
    """Processes that make batches of images and sound on disk, for each rank; None for as many as there are cores but one, 0 for
    none."""
    check_only: bool = False
    """Whether to run the preflight check alone, one step of each training on the CPU, which ends with :class:`Checked`."""
    preview: int | None = None
    """How many samples to show as the networks read them, and nothing else, which ends with :class:`Previewed`; None for a job or
    a check."""
    planned: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For a check: by source, the normalised spec of an unfinished job whose student is to be a teacher."""
    away: dict[str, str] = field(default_factory=dict)
    """For a check: by source of a network of the Hub that cannot be reached at this moment, why."""
    most_bytes: int | None = None
    """For a check: the host memory that its networks may use, in bytes; None if unknown."""

    @property
    def devices(self) -> tuple[str, ...]:
        """One per rank, over all hosts."""
        return tuple(device for place in self.placement for device in place.devices)


@dataclass(frozen=True)
class PhaseStarted:
    """The start of a phase. ``message`` describes it, for people."""

    phase: Phase
    message: str
    type: Literal["phase_started"] = "phase_started"


@dataclass(frozen=True)
class Progress:
    """The progress of the current phase; emitted at most a few times a second, and at its first and last step."""

    phase: Phase
    step: int
    """Optimizer steps done in this phase, those of earlier attempts included."""
    total_steps: int
    epoch: int
    """The epoch that the step belongs to, from 1."""
    samples_per_second: float | None
    eta_seconds: float | None
    part: Part | None = None
    """The part of the job that the steps belong to; None for a phase that is not a training."""
    earlier_steps: int = 0
    """Optimizer steps of the part's networks that were trained before, in any attempt."""
    type: Literal["progress"] = "progress"


@dataclass(frozen=True)
class MetricPoints:
    """Measured values: ``points`` holds, by metric name (``student/train_loss``), a list of (step, value)."""

    points: dict[str, list[tuple[int, float]]]
    type: Literal["metric_points"] = "metric_points"


@dataclass(frozen=True)
class CheckpointWritten:
    """``CHECKPOINT_FILE`` was replaced by a complete one, synced to disk."""

    phase: Phase
    step: int
    type: Literal["checkpoint_written"] = "checkpoint_written"


@dataclass(frozen=True)
class Warned:
    """Something to know of the data, of a teacher or of the result, which does not end the job."""

    code: str
    message: str
    type: Literal["warned"] = "warned"


@dataclass(frozen=True)
class Noted:
    """What the trainer has decided, and why."""

    code: str
    message: str
    type: Literal["noted"] = "noted"


@dataclass(frozen=True)
class Finished:
    """The job is done and ``RESULT_FOLDER`` complete."""

    result: dict[str, Any]
    """The report card's headline figures."""
    type: Literal["finished"] = "finished"


@dataclass(frozen=True)
class Checked:
    """The job passed its preflight check."""

    estimate: dict[str, Any]
    """Its estimated time and memory: ``service.spec.estimate.Estimate`` as JSON."""
    preview: dict[str, Any] | None = None
    """``service.spec.preview.Preview`` as JSON; None where that takes as long as in the job."""
    type: Literal["checked"] = "checked"


@dataclass(frozen=True)
class Previewed:
    """What the networks read of some samples."""

    preview: dict[str, Any]
    """``service.spec.preview.Preview`` as JSON."""
    type: Literal["previewed"] = "previewed"


@dataclass(frozen=True)
class Stopped:
    """The trainer stopped as requested. The student that ``keep`` names, if any, is in ``RESULT_FOLDER``."""

    reason: StopReason
    type: Literal["stopped"] = "stopped"


@dataclass(frozen=True)
class Failed:
    """The job failed (``code`` of ``service.errors.FAILURE_CODES``); ``retryable`` if another attempt may succeed."""

    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    retryable: bool = False
    type: Literal["failed"] = "failed"


FinalEvent = Finished | Checked | Previewed | Stopped | Failed
"""A trainer's last event; one that ends without has crashed, or was killed."""
Event = PhaseStarted | Progress | MetricPoints | CheckpointWritten | Warned | Noted | FinalEvent

_EVENTS: dict[str, type[Event]] = {
    "phase_started": PhaseStarted,
    "progress": Progress,
    "metric_points": MetricPoints,
    "checkpoint_written": CheckpointWritten,
    "warned": Warned,
    "noted": Noted,
    "finished": Finished,
    "checked": Checked,
    "previewed": Previewed,
    "stopped": Stopped,
    "failed": Failed,
}


@dataclass(frozen=True)
class StopRequest:
    """Requests that the trainer stop after its current step.

    Every reason but ``cancel`` writes a checkpoint first. A cancel and a time limit write ``RESULT_FOLDER`` with the student as
    ``keep`` names it (the best by validation so far, the last, or nothing), so that the training is not lost.
    """

    reason: StopReason
    keep: Literal["best", "last", "none"] = "last"


class Reporter(Protocol):
    """The receiver of a trainer's events: the supervisor's pipe, or the terminal without a service."""

    def emit(self, event: Event) -> None:
        """Sends one event."""

    def stop_request(self) -> StopRequest | None:
        """The pending stop request, if any; cheap enough to be called at every step."""


def encode(message: Event | StopRequest) -> bytes:
    """Encodes a message as JSON. Raises ValueError for NaN and infinity: a metric that is not finite is an error, not a point."""
    return json.dumps(dataclasses.asdict(message), allow_nan=False).encode()


def decode_event(data: bytes) -> Event:
    """Decodes an event that :func:`encode` encoded."""
    fields = json.loads(data)
    return _EVENTS[fields["type"]](**fields)


def decode_stop(data: bytes) -> StopRequest:
    """Decodes a stop request that :func:`encode` encoded."""
    return StopRequest(**json.loads(data))
