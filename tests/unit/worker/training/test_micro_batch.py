"""A batch in parts against the whole batch: the same loss, the same gradients, the same memory of the method."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from service.spec.methods import METHODS, OF_TOKENS, MethodSpec
from tests.unit.worker.training import test_causal_lm as language
from tests.unit.worker.training.test_criterion import TARGETS as CLASSES
from tests.unit.worker.training.test_criterion import TeacherOfWords, Words, of_words, sentences, step
from worker.data.samples import Batch, Samples
from worker.methods import FeatureExtractor, LayerPairs, LossContext, Outputs, WeightedSum, build_loss, privileged_term
from worker.methods.layer_mapping import map_layers
from worker.models.privileged import PrivilegedNetwork
from worker.targets import Target, Targets
from worker.training.causal_lm import LanguageTeacher, NextTokenCriterion, generate_texts, language_criterion
from worker.training.criterion import BatchCriterion, Criterion, extra_inputs, label_criterion
from worker.training.micro_batch import Pieces

CPU = torch.device("cpu")
TARGETS = Targets.of_classes(["a", "b", "c", "d"])
SEVERAL = Targets((Target("kind", ("a", "b", "c")), Target("size", None)))
ROWS = torch.tensor([4, 0, 7, 3, 2])
SIZES: dict[str, dict[str, Any]] = {
    "crd": {"negatives": 5, "dimension": 6},
    "correlation-congruence": {"dimension": 6},
    "review": {"width": 4},
    "teacher-assistant": {"assistants": [{"name": "small-cnn", "width": 4}]},
    "distillation-network": {"teacher_dropout": 0.0},
    "logit-standardization": {"loss": "dkd"},
}


class Convolutions(nn.Module):
    """Images (B, 1, 6, 6) to logits, by two stages of convolutions without a norm."""

    stage_layers, embedding_layers = ("first", "second"), ("pooled",)

    def __init__(self, width: int, num_outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Dropout(dropout))
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1, stride=2), nn.ReLU())
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(2 * width, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.pooled(self.second(self.first(images))))
        return logits


class Teacher:
    """Outputs and layers that are computed in each step."""

    def __init__(self, network: nn.Module, layers: tuple[str, ...]) -> None:
        self._extractor = FeatureExtractor(network, layers)

    def __call__(self, batch: Batch) -> Outputs:
        with torch.no_grad():
            return self._extractor(batch.inputs)

    def stored_bytes(self, num_samples: int) -> int:
        return 0


def method(name: str, **settings: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(MethodSpec)
    return adapter.validate_python({"name": name} | SIZES.get(name, {}) | settings)


def criterion(
    name: str,
    *,
    targets: Targets = TARGETS,
    dropout: float = 0.0,
    is_mean: bool | None = None,
    weights: Tensor | None = None,
) -> tuple[BatchCriterion, nn.Module]:
    """A method's criterion on eight images, and its student, in float64."""
    spec = method(name)
    torch.manual_seed(0)
    term = privileged_term(spec)
    student: nn.Module = Convolutions(3, targets.width * (2 if term else 1), dropout=dropout)
    if term:
        student = PrivilegedNetwork(student, targets, extra_input=term.extra_input)
    student, teacher = student.double(), Convolutions(4, targets.width).double()
    images, labels = torch.randn(8, 1, 6, 6, dtype=torch.float64), torch.arange(8) % 4
    if targets is SEVERAL:
        labels = torch.stack([labels % 3, torch.randn(8)], dim=1).double()
        labels[4, 0] = labels[0, 1] = labels[7, 1] = float("nan")
    mapping = map_layers(spec, student=student, teacher=teacher, student_inputs=images[:2], teacher_inputs=images[:2])
    objective = mapping.objective(targets=targets, labels=labels).double()
    built = BatchCriterion(
        student,
        Samples(images, labels, None, CPU, weights=weights),
        objective,
        layers=mapping.student_layers,
        teacher_outputs=Teacher(teacher, tuple(mapping.teacher_shapes)),
        extra_inputs=extra_inputs(spec),
        is_mean=objective.is_mean if is_mean is None else is_mean,
    )
    return built, student


@dataclass
class Taught:
    """What a batch gave."""

    loss: float
    gradients: dict[str, Tensor]
    memory: dict[str, Tensor]
    """Buffers of the method."""
    next_number: float
    """What is drawn next."""


def taught(criterion: Criterion, network: nn.Module, *, rows: Tensor = ROWS, size: int | None = None) -> Taught:
    """Computes the loss of a batch, as a whole or in parts, and its gradients."""
    torch.manual_seed(7)
    whole: Pieces = iter([lambda: criterion(rows, step(5))])
    loss = 0.0
    for piece in whole if size is None else criterion.pieces(torch.split(rows, size), step(5)):
        value = piece()
        torch.autograd.backward(value)
        loss += value.item()
    module = nn.ModuleList([network, *([] if criterion.module is None else [criterion.module])])
    gradients = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    module.zero_grad()
    own = criterion.module
    return Taught(loss, gradients, {} if own is None else dict(own.named_buffers()), torch.rand(()).item())


def assert_alike(parts: Taught, whole: Taught) -> None:
    assert whole.gradients
    assert parts.loss == pytest.approx(whole.loss, rel=1e-9)
    torch.testing.assert_close(parts.gradients, whole.gradients, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(parts.memory, whole.memory)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS])
def test_a_method_teaches_in_parts_what_it_teaches_at_once(name: str) -> None:
    parts, whole = (taught(*criterion(name), size=size) for size in (2, None))
    assert_alike(parts, whole)
    assert parts.next_number == whole.next_number


WEIGHTED = Targets((Target("kind", ("a", "b", "c", "d"), class_weights=(1.0, 0.2, 5.0, 1.0), label_smoothing=0.1),))


@pytest.mark.parametrize("name", ["soft-targets", "dkd", "multi-task"])
@pytest.mark.parametrize("targets", [TARGETS, WEIGHTED, SEVERAL], ids=["rows", "rows and classes", "of several targets"])
def test_weighted_rows_and_classes_teach_in_parts_what_they_teach_at_once(name: str, targets: Targets) -> None:
    if name == "dkd" and targets is SEVERAL:
        return
    weights = torch.tensor([0.0, 1.0, 3.0, 0.5, 2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    (built, student), whole = criterion(name, targets=targets, weights=weights), criterion(name, targets=targets, weights=weights)
    assert built.is_divided == (targets is TARGETS)
    parts, plain = taught(built, student, size=2), taught(*criterion(name, targets=targets))
    assert_alike(parts, taught(*whole))
    assert parts.loss != pytest.approx(plain.loss)


@pytest.mark.parametrize("name", ["soft-targets", "multi-task", "distillation-network"])
def test_labels_that_are_not_there_count_in_the_whole_batch(name: str) -> None:
    built, student = criterion(name, targets=SEVERAL)
    assert not built.is_divided
    assert_alike(taught(built, student, size=1), taught(*criterion(name, targets=SEVERAL)))


def test_the_second_pass_draws_what_the_first_drew() -> None:
    once, twice = (taught(*criterion("soft-targets", dropout=0.5, is_mean=is_mean), size=2) for is_mean in (True, False))
    assert_alike(twice, once)
    assert twice.next_number == once.next_number
    assert once.loss != taught(*criterion("soft-targets"), size=2).loss


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", [None, "soft-targets", "dist"])
def test_words_count_one_by_one_and_not_by_sentences(name: str | None, size: int) -> None:
    results = []
    for parts in (size, None):
        student, samples = Words(0), sentences()
        if name is None:
            built = label_criterion(student, samples, CLASSES, prediction_mask=of_words)
        else:
            context = LossContext(CLASSES, samples.labels, LayerPairs((), ()), {}, {})
            spec = method(name, weight=1.0) if name == "dist" else method(name)
            objective = WeightedSum([(spec, build_loss(spec, context))], CLASSES)
            built = BatchCriterion(
                student,
                samples,
                objective,
                teacher_outputs=TeacherOfWords(Words(1)),
                prediction_mask=of_words,
                is_mean=objective.is_mean,
            )
        results.append(taught(built, student, rows=torch.tensor([2, 0, 1]), size=parts))
    parts_taught, whole = results
    assert parts_taught.loss == pytest.approx(whole.loss, rel=1e-5)
    torch.testing.assert_close(parts_taught.gradients, whole.gradients)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", [None, *sorted(OF_TOKENS), "uld, two tokenizers"])
def test_tokens_count_one_by_one_and_not_by_rows(name: str | None, size: int) -> None:
    results = []
    for parts in (size, None):
        student, samples = language.network(4), language.rows()
        teacher = LanguageTeacher(language.network(8, seed=1), language.FRAMING, language.LENGTH)
        if name is None:
            built: Criterion = NextTokenCriterion(student, samples)
        elif "," in name:
            other = language.rows(vocabulary=7)
            other = Samples(other.inputs, other.labels & (torch.arange(language.LENGTH) % 3 > 0), None, CPU)
            teacher = LanguageTeacher(language.network(8, vocabulary=7, seed=1), language.FRAMING, language.LENGTH, other)
            built = language_criterion(language.method("uld", label_weight=0.5), student, samples, teacher)
        else:
            # At so low a temperature the student writes the same text whatever it draws.
            settings = {"sampling_temperature": 1e-6} if name == "on-policy" else {}
            spec = language.method(name, label_weight=0.5, **settings)
            written = (
                generate_texts(spec, teacher, samples, seed=5, after_batch=lambda done: None) if name == "sequence" else None
            )
            built = language_criterion(spec, student, samples, teacher, generated=written)
        results.append(taught(built, student, rows=torch.tensor([3, 1, 0, 2]), size=parts))
    assert_alike(*results)
