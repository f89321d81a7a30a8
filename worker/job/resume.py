"""The state of a job between any two optimizer steps, which one checkpoint hands from attempt to attempt.

Invariant: a state is restored only for the same training parts of a spec, on the same data: a checkpoint that is damaged, or
another job's, is never trained from.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from service.spec import JobSpec
from service.spec.warning_message import WarningMessage
from worker.data import Data, RawInputs, Split, first
from worker.data.disk.stored import StoredInputs
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult
from worker.job.roles import STUDENT, Role
from worker.spec_file import training_parts
from worker.training.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint
from worker.training.result import TrainingResult

logger = logging.getLogger(__name__)

_DIGESTED_SAMPLES = 100
_WRITTEN_TOGETHER = 4096

Unfinished = tuple[Role, dict[str, Any]]
"""A training that has not ended: its role, and its ``Training.state()``."""

Scores = dict[Role, EvaluationResult | None]
"""Scores of networks; None for a split without labels."""


@dataclass
class JobState:
    """Everything that the trainings of a job have produced so far."""

    finished: dict[Role, TrainingResult] = field(default_factory=dict)
    last_test: Scores = field(default_factory=dict)
    """Scores of each finished network's last weights on the test split, None if it has no labels; the last weights themselves are
    not kept for all."""
    replicate_scores: Scores = field(default_factory=dict)
    """Scores of each seed replicate on the test split, None if it has no labels; its weights are not kept."""
    teacher_scores: Scores = field(default_factory=dict)
    """Scores on validation of the teachers that were checked, None if it has no labels."""
    warnings: list[WarningMessage] = field(default_factory=list)
    """What was found so far that the report tells."""
    interrupted: Unfinished | None = None
    """The training that the previous attempt was in, until this attempt reaches it."""

    def trained_steps(self, roles: Iterable[Role]) -> int:
        """Steps of those of these networks that are finished. A seed replicate is counted with as many steps as the student."""
        known = (STUDENT if role in self.replicate_scores else role for role in roles)
        return sum(self.finished[role].figures.steps for role in known if role in self.finished)

    def write(self, path: Path, *, digest: str, unfinished: Unfinished | None, revisions: Mapping[str, str]) -> None:
        """Replaces the checkpoint at ``path``."""
        state = {
            "digest": digest,
            "threads": torch.get_num_threads(),
            "unfinished": unfinished and (str(unfinished[0]), unfinished[1]),
            "revisions": dict(revisions),
            "finished": {str(role): trained.state() for role, trained in self.finished.items()},
            "repeats": _written(self.replicate_scores),
            "last_test": _written(self.last_test),
            "teacher_scores": _written(self.teacher_scores),
            "warnings": [warning.model_dump() for warning in self.warnings],
        }
        write_checkpoint(path, state)

    @classmethod
    def from_checkpoint(cls, state: Mapping[str, Any]) -> Self:
        """Restores what :meth:`write` wrote."""
        return cls(
            finished={Role.parse(role): TrainingResult.from_state(trained) for role, trained in state["finished"].items()},
            last_test=_read(state["last_test"]),
            replicate_scores=_read(state["repeats"]),
            teacher_scores=_read(state["teacher_scores"]),
            warnings=[WarningMessage(**warning) for warning in state["warnings"]],
            interrupted=state["unfinished"] and (Role.parse(state["unfinished"][0]), state["unfinished"][1]),
        )


def _written(results: Scores) -> dict[str, dict[str, Any] | None]:
    return {str(role): None if result is None else asdict(result) for role, result in results.items()}


def _read(written: Mapping[str, dict[str, Any] | None]) -> Scores:
    return {Role.parse(role): None if result is None else EvaluationResult(**result) for role, result in written.items()}


def read_resumable(path: Path, *, digest: str, revisions: Mapping[str, str], device: torch.device) -> JobState | None:
    """Reads the state from a checkpoint; None if there is none that this job may resume from.

    ``revisions`` are those of the networks that the job names. Raises JobFault if the checkpoint was made with others.

    On a CPU, sets the number of threads that the earlier attempts used.
    """
    try:
        checkpoint = read_checkpoint(path)
    except FileNotFoundError:
        return None
    except DamagedCheckpoint as error:
        logger.warning("The checkpoint is damaged, so the job starts from its beginning: %s", error)
        return None
    if checkpoint["digest"] != digest:
        logger.warning("The checkpoint belongs to another spec or other data, so the job starts from its beginning.")
        return None
    for source, revision in checkpoint["revisions"].items():
        if revisions.get(source) != revision:
            raise JobFault(
                "input_unavailable",
                f"{source} is at {revisions.get(source)}, and the job was begun with it at {revision}.",
                hint="Put back what was there, or submit the job again, which then begins with what is there now.",
            )
    if device.type == "cpu" and checkpoint["threads"] != torch.get_num_threads():
        # Sums are split among threads: only the same number of them gives the same student, bit for bit.
        logger.info("Using %d threads, as the earlier attempts did.", checkpoint["threads"])
        torch.set_num_threads(checkpoint["threads"])
    state = JobState.from_checkpoint(checkpoint)
    logger.info("Resuming after %s.", ", ".join(map(str, state.finished)) or "no finished phase")
    return state


def job_digest(spec: JobSpec, data: Data) -> str:
    """SHA-256 of a spec's training parts and of its data, as they are read from their files."""
    digest = hashlib.sha256(json.dumps(training_parts(spec), sort_keys=True).encode())
    digest.update(repr(data.targets).encode())
    for name in sorted(data.splits):
        split = data.splits[name]
        for piece in _answers(split):
            digest.update(piece)
        digest.update(split.labels.contiguous().numpy().data)
        if split.weights is not None:
            digest.update(split.weights.numpy().tobytes())
        digest.update(_first_bytes(split.inputs))
        if split.transfer is not None:
            digest.update(_first_bytes(split.inputs[len(split) - split.transfer.count :]))
    return digest.hexdigest()


def _answers(split: Split) -> Iterator[bytes]:
    """How Python writes the number of samples and a split's answers, or what they are known by where they stay on disk."""
    if not isinstance(split.answers, StoredInputs):
        yield repr((len(split), split.answers)).encode()
        return
    digests = split.answers.digests()
    yield f"({len(split)}, [".encode()
    for start in range(0, len(digests), _WRITTEN_TOGETHER):
        piece = repr(digests[start : start + _WRITTEN_TOGETHER].tolist())[1:-1]
        yield f"{', ' if start else ''}{piece}".encode()
    yield b"])"


def _first_bytes(inputs: RawInputs) -> bytes:
    """The bytes of the first samples: enough to tell one file from another."""
    some = first(inputs, _DIGESTED_SAMPLES)
    return some.numpy().tobytes() if isinstance(some, Tensor) else repr(some).encode()
