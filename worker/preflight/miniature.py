"""A job in miniature: its spec with one step on a batch of two for every training, and without its reports."""

import logging
from typing import Any

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from service.spec.training import TrainingSpec
from worker.preflight.sampling import STEP_SAMPLES
from worker.protocol import Event, Reporter, StopRequest

logger = logging.getLogger(__name__)

_LEARNING_RATE = 1e-12
"""Of every optimizer; too small to change a weight."""


def miniature_spec(spec: JobSpec) -> JobSpec:
    """The spec of a job of one step on a batch of two."""
    # No CPU trains in fp16, which takes as much memory as bf16; auto is bf16 on all GPUs since Ampere.
    on_gpu: dict[str, Any] = {"fp16": "bf16", "auto": "bf16"} if spec.resources.gpus else {}

    def miniature(training: TrainingSpec) -> TrainingSpec:
        changes = {
            "epochs": 1,
            "max_steps": None,
            "batch_size": STEP_SAMPLES,
            "gradient_accumulation": 1,
            "micro_batch": training.micro_batch and STEP_SAMPLES,
            "early_stopping": None,
            "optimizer": training.optimizer.model_copy(
                update={name: _LEARNING_RATE for name in type(training.optimizer).model_fields if name.endswith("learning_rate")}
            ),
            "head_learning_rate": training.head_learning_rate and _LEARNING_RATE,
            "precision": on_gpu.get(training.precision, training.precision),
        }
        return training.model_copy(update=changes)

    def teacher(each: TeacherSpec) -> TeacherSpec:
        return each.model_copy(update={"training": None if each.training is None else miniature(each.training)})

    several = isinstance(spec.teacher, list)
    teachers = [teacher(each) for each in spec.teachers.values()]
    return spec.model_copy(update={"teacher": teachers if several else teachers[0], "training": miniature(spec.training)})


class QuietReporter:
    """Forwards stop requests and drops events: the phases of a training are not those of a check."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def emit(self, event: Event) -> None:
        logger.debug("%s", event)

    def stop_request(self) -> StopRequest | None:
        return self._reporter.stop_request()
