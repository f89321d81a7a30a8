"""What a criterion computes of a batch: named inputs, the teacher's outputs, further inputs, the predictions that count."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import SoftTargets
from worker.data.samples import Batch, Samples
from worker.distributed.ranks import SINGLE_PROCESS
from worker.evaluation.precision import Precision
from worker.methods import DistillationBatch, LayerPairs, LossContext, Outputs, WeightedSum, build_loss
from worker.targets import Target, Targets, label_loss
from worker.training.criterion import BatchCriterion, StepContext, label_criterion

CPU = torch.device("cpu")
TARGETS = Targets.of_classes(["a", "b", "c"])
NO_LABEL, NO_WORD = -1, -2
ROWS = torch.tensor([2, 0])


def step(number: int = 0) -> StepContext:
    return StepContext(number, steps_per_epoch=4, last_step=10, precision=Precision(CPU, None), group=SINGLE_PROCESS)


class Words(nn.Module):
    """Ids (B, L) and the first pieces (B, Lw) of the words to a row of logits for each word, (B, Lw, 3)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(8, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        states: Tensor = self.embedding(inputs["ids"])
        return states.gather(1, inputs["first_pieces"].unsqueeze(-1).expand(-1, -1, 3))


def of_words(labels: Tensor) -> Tensor:
    return labels != NO_WORD


def sentences() -> Samples:
    """Three sentences of three, one and two words, in pieces; the labels have a column more than there are words."""
    inputs = {
        "ids": torch.tensor([[1, 2, 3, 4], [5, 0, 0, 0], [6, 7, 1, 0]]),
        "first_pieces": torch.tensor([[0, 1, 3], [0, 0, 0], [0, 2, 0]]),
    }
    labels = torch.tensor([[0, 1, 2, -2], [1, -2, -2, -2], [NO_LABEL, 2, -2, -2]])
    return Samples(inputs, labels, None, CPU)


class TeacherOfWords:
    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self, batch: Batch) -> Outputs:
        with torch.no_grad():
            return Outputs(self._network(batch.inputs))

    def stored_bytes(self, num_samples: int) -> int:
        return num_samples


def test_named_inputs_reach_the_network_and_words_count_one_by_one() -> None:
    network, samples = Words(0), sentences()
    loss = label_criterion(network, samples, TARGETS, prediction_mask=of_words)(ROWS, step())
    # Sentence 2 has a word without a label, then one of class 2; sentence 0 has three words.
    logits = network.embedding.weight[torch.tensor([1, 1, 2, 4])]
    torch.testing.assert_close(loss, functional.cross_entropy(logits, torch.tensor([2, 0, 1, 2])))


def test_numbers_of_words_count_one_by_one() -> None:
    network, words = Words(0), sentences()
    numbers = words.labels.unsqueeze(-1).float().expand(-1, -1, 3).clone()
    numbers[words.labels == NO_LABEL], numbers[words.labels == NO_WORD] = math.nan, -math.inf
    numbers[..., 2] += 1
    targets = Targets(tuple(Target(name, None) for name in "abc"))
    samples = replace(words, labels=numbers)
    loss = label_criterion(network, samples, targets, prediction_mask=lambda labels: labels[..., 0] != -math.inf)(ROWS, step())
    outputs = network.embedding.weight[torch.tensor([1, 1, 2, 4])]
    wanted = torch.tensor([[2.0, 2.0, 3.0], [0.0, 0.0, 1.0], [1.0, 1.0, 2.0], [2.0, 2.0, 3.0]])
    torch.testing.assert_close(loss, (outputs - wanted).square().mean(dim=0).sum())


def test_a_teacher_is_compared_word_by_word() -> None:
    student, teacher, samples = Words(0), Words(1), sentences()
    method = SoftTargets(temperature=1.0, label_weight=0.0)
    context = LossContext(TARGETS, samples.labels, LayerPairs((), ()), {}, {})
    objective = WeightedSum([(method, build_loss(method, context))], TARGETS)
    criterion = BatchCriterion(student, samples, objective, teacher_outputs=TeacherOfWords(teacher), prediction_mask=of_words)
    pieces = torch.tensor([6, 1, 1, 2, 4])
    ours, theirs = (each.embedding.weight[pieces].log_softmax(-1) for each in (student, teacher))
    expected = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    torch.testing.assert_close(criterion(ROWS, step()), expected)
    assert criterion.module is objective
    assert criterion.stored_bytes(7) == 7


def test_a_criterion_without_a_teacher_keeps_nothing_and_has_no_weights() -> None:
    criterion = label_criterion(Words(0), sentences(), TARGETS, prediction_mask=of_words)
    assert criterion.module is None
    assert criterion.stored_bytes(7) == 0


class ReadsTeacher(nn.Module):
    """The sample's numbers, plus those of a further input."""

    def forward(self, numbers: Tensor, further: Tensor) -> Tensor:
        return numbers + further


class ConstantTeacher:
    """In half precision."""

    def __call__(self, batch: Batch) -> Outputs:
        return Outputs(torch.full((len(batch.indices), 3), float(batch.epoch), dtype=torch.bfloat16))

    def stored_bytes(self, num_samples: int) -> int:
        return 0


def test_further_inputs_follow_from_the_teachers_outputs_and_the_progress() -> None:
    numbers = torch.arange(9.0).view(3, 3)
    seen: list[DistillationBatch] = []

    def loss(batch: DistillationBatch) -> Tensor:
        seen.append(batch)
        return label_loss(TARGETS, batch.student.logits, batch.labels)

    criterion = BatchCriterion(
        ReadsTeacher(),
        Samples(numbers, torch.tensor([0, 1, 2]), None, CPU),
        loss,
        teacher_outputs=ConstantTeacher(),
        extra_inputs=lambda outputs, progress: (outputs * progress,),
    )
    criterion(ROWS, step(6))
    (batch,) = seen
    assert batch.teacher_outputs.logits.dtype is torch.float32
    assert batch.teacher_outputs.logits.tolist() == [[1.0] * 3] * 2, "the second epoch"
    torch.testing.assert_close(batch.student.logits, numbers[ROWS] + 0.6)
    assert batch.epoch == pytest.approx(1.5)
    assert batch.indices.tolist() == ROWS.tolist()
    assert batch.labels.tolist() == [2, 0]
