"""What chooses the best weights: labels, or a teacher where there are none."""

import torch
from torch import nn

from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS
from worker.evaluation.precision import Precision
from worker.targets import Target, Targets
from worker.tasks import TASKS
from worker.training.validation import Validation, ValidationTeacher

CPU = torch.device("cpu")
CLASSES, NUMBER = Targets.of_classes(["a", "b"]), Targets((Target("size", None),))
LOGITS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
TASK = TASKS["image-classification"]


def evaluated(validation: Validation) -> tuple[str, str, float]:
    result = validation.evaluate(nn.Identity(), precision=Precision(CPU, None), group=SINGLE_PROCESS)
    return validation.score_name, validation.chosen_by, result.score


def test_labels_choose_where_there_are_labels() -> None:
    samples = Samples(LOGITS, torch.tensor([0, 1, 1, 1]), None, CPU)
    assert evaluated(TASK.validation(samples, CLASSES)) == ("accuracy", "score", 0.75)
    numbers = Samples(torch.arange(4.0).unsqueeze(1), torch.arange(4.0).unsqueeze(1), None, CPU)
    assert evaluated(TASK.validation(numbers, NUMBER)) == ("score", "score", 1.0)


def test_a_teacher_chooses_by_the_agreement_with_it() -> None:
    samples = Samples(LOGITS, torch.full((4,), -1), None, CPU)
    teacher = ValidationTeacher(LOGITS.flip(1)[[0, 2, 1, 1]], None)
    assert evaluated(TASK.validation(samples, CLASSES, teacher=teacher)) == ("agreement", "agreement", 0.75)
