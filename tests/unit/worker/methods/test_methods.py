"""The losses against values of public reference implementations, and their gradients against finite differences."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.job import JobSpec
from service.spec.methods import METHODS, OF_TOKENS, DistilBert, Layers, SoftTargets, SumOfTerms
from tests.unit.spec.test_fit import spec as digits_spec
from worker.methods import LOSSES, DistillationBatch, LayerPairs, LossContext, Outputs, UnfitLayers, UnknownLayer, privileged_term
from worker.methods.feature import attention, hierarchical_context, hint, neuron_selectivity, similarity
from worker.methods.layer_mapping import LayerMapping, map_layers
from worker.methods.losses import MEANS
from worker.methods.relation import congruence, probabilistic, relational
from worker.methods.response import correlation, decoupled, kl_divergence, one_for_all, standardized
from worker.methods.sequence import TOKEN_LOSSES, generalized_jsd
from worker.methods.soft_targets import soft_targets
from worker.models import build_network
from worker.models.privileged import PrivilegedNetwork
from worker.targets import Targets, label_loss

# Another file of the same form may be named.
REFERENCE_FILE = Path(os.environ.get("REFERENCE_LOSSES", Path(__file__).parents[3] / "data" / "losses.json"))
SEEDED_FILE = Path(__file__).parents[3] / "data" / "seeded_losses.json"


def of_width(logits: Tensor) -> Targets:
    return Targets.of_classes([str(index) for index in range(logits.shape[-1])])


def of(student: Tensor, teacher: Tensor, labels: Tensor) -> DistillationBatch:
    return DistillationBatch(Outputs(student), Outputs(teacher), labels, torch.arange(len(labels)))


DIVERGENCES = ("kl", "cross-entropy", "mse")


def reference_tensor(description: dict[str, Any]) -> Tensor:
    shape = description["shape"]
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    values: Tensor = (description["scale"] * torch.sin(description["freq"] * index + description["phase"])).reshape(shape)
    return values


def settings(name: str) -> dict[str, float]:
    """``dist beta=1 gamma=1 tau=1`` has beta 1, gamma 1, tau 1."""
    pairs = (word.split("=") for word in name.replace("(", " ").replace(",", " ").split() if "=" in word)
    return {key: float(value) for key, value in pairs if value.replace(".", "").isdigit()}


# The part of a reference value's name before its settings, and the loss that must give it.
REFERENCES: dict[str, Callable[[dict[str, Any], dict[str, float]], Tensor]] = {
    "soft_targets kl": lambda x, s: soft_targets(
        SoftTargets(temperature=s["T"], label_weight=0.0),
        of_width(x["student_logits"]),
        of(x["student_logits"], x["teacher_logits"], x["labels"]),
    ),
    "fitnet hint mse": lambda x, s: hint(x["student_map"], x["teacher_map"]),
    "attention_transfer": lambda x, s: attention(x["student_map"], x["teacher_map"], power=s["p"]),
    "similarity_preserving": lambda x, s: similarity(x["student_map"], x["teacher_map"]),
    "pkt": lambda x, s: probabilistic(x["student_embedding"], x["teacher_embedding"]),
    "rkd": lambda x, s: relational(
        x["student_embedding"], x["teacher_embedding"], distance_weight=s["w_distance"], angle_weight=s["w_angle"]
    ),
    "nst poly kernel": lambda x, s: neuron_selectivity(x["student_map"], x["teacher_map"]),
    "correlation_congruence": lambda x, s: congruence(x["student_embedding"], x["teacher_embedding"]),
    "dkd": lambda x, s: decoupled(
        x["student_logits"], x["teacher_logits"], x["labels"], alpha=s["alpha"], beta=s["beta"], temperature=s["T"]
    ),
    "dist": lambda x, s: correlation(
        x["student_logits"], x["teacher_logits"], beta=s["beta"], gamma=s["gamma"], temperature=s["tau"]
    ),
    "logit_standardization kl": lambda x, s: kl_divergence(
        standardized(x["student_logits"]), standardized(x["teacher_logits"]), temperature=s["T"]
    ),
    "ofa": lambda x, s: one_for_all(x["student_logits"], x["teacher_logits"], x["labels"], epsilon=s["eps"], temperature=s["T"]),
    "review_kd hcl": lambda x, s: hierarchical_context(x["student_map"], x["teacher_map"]),
    "generalized_jsd": lambda x, s: generalized_jsd(
        x["student_logits"], x["teacher_logits"], beta=s["beta"], temperature=s["T"]
    ).mean(),
}


def reference_cases() -> list[Any]:
    cases = json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))["cases"]
    return [
        pytest.param(case["inputs"], name, value, id=f"{number} {name}")
        for number, case in enumerate(cases)
        for name, value in case["values"].items()
    ]


@pytest.mark.parametrize(("inputs", "name", "expected"), reference_cases())
def test_each_loss_gives_the_value_of_its_reference_code(inputs: dict[str, Any], name: str, expected: float) -> None:
    values = {key: torch.tensor(each) if isinstance(each, list) else reference_tensor(each) for key, each in inputs.items()}
    (loss,) = (loss for beginning, loss in REFERENCES.items() if name.split(" ")[0] == beginning.split(" ")[0])
    assert loss(values, settings(name)).item() == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.tensor([0, 4, 2, 2, 1, 3])


# ------------------------------------------------------------ every method on two small networks


SIZES: dict[str, Any] = {
    "crd": {"negatives": 5, "dimension": 6},
    "correlation-congruence": {"dimension": 6},
    "review": {"width": 8},
    "teacher-assistant": {"assistants": [{"name": "small-cnn", "width": 4}]},
}
NUM_CLASSES = 5
TARGETS = Targets.of_classes([str(index) for index in range(NUM_CLASSES)])


def job(method: dict[str, Any], *, teacher: str = "resnet8x4") -> JobSpec:
    document = digits_spec(teacher={"architecture": {"name": teacher}}).model_dump(mode="json")
    return JobSpec.model_validate(document | {"method": method})


def networks(method: dict[str, Any]) -> tuple[LayerMapping, nn.Module, nn.Module]:
    """A method's plan with a student and a teacher of different widths and depths, in float64."""
    torch.manual_seed(0)
    spec = job(method)
    taught_by = spec.teachers["teacher"].architecture
    assert taught_by is not None
    privileged = privileged_term(spec.method)
    student = build_network(
        spec.student.built, input_shape=(1, 8, 8), num_outputs=NUM_CLASSES * (2 if privileged else 1)
    ).double()
    if privileged:
        student = PrivilegedNetwork(student, TARGETS, extra_input=privileged.extra_input).double()
    teacher = build_network(taught_by, input_shape=(1, 8, 8), num_outputs=NUM_CLASSES).double()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    return (
        map_layers(spec.method, student=student, teacher=teacher, student_inputs=images, teacher_inputs=images),
        student,
        teacher,
    )


def made_up_step(planned: LayerMapping, *, seed: int = 0) -> DistillationBatch:
    """Outputs of the right shapes that came of no network, with gradients wanted of the student's."""
    generator = torch.Generator().manual_seed(seed)

    def outputs(shapes: Any, *, learns: bool) -> Outputs:
        def made(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(learns)

        return Outputs(made(6, NUM_CLASSES), {path: made(6, *shape) for path, shape in shapes.items()})

    student, teacher = outputs(planned.student_shapes, learns=True), outputs(planned.teacher_shapes, learns=False)
    return DistillationBatch(student, teacher, torch.tensor([0, 4, 2, 2, 1, 3]), torch.arange(6), epoch=5.0)


def seeded_objective(planned: LayerMapping) -> nn.Module:
    torch.manual_seed(1)
    return planned.objective(targets=TARGETS, labels=torch.arange(40) % NUM_CLASSES).double()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS])
def test_a_seeded_loss_is_what_it_was(name: str) -> None:
    """Recorded: a change of code that is not meant to change a loss leaves these as they are."""
    planned, *_ = networks({"name": name} | SIZES.get(name, {}))
    value = seeded_objective(planned)(made_up_step(planned)).item()
    assert value == pytest.approx(json.loads(SEEDED_FILE.read_text())[name], rel=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS])
def test_the_gradient_to_the_students_outputs_agrees_with_finite_differences(name: str) -> None:
    planned, *_ = networks({"name": name} | SIZES.get(name, {}))
    objective, step = seeded_objective(planned), made_up_step(planned)
    objective(step)  # the first call of one estimates a constant
    memory = {key: tensor.clone() for key, tensor in objective.state_dict().items()}
    inputs = [step.student.logits, *step.student.features.values()]

    def loss(*values: Tensor) -> Tensor:
        objective.load_state_dict(memory)  # a memory bank moves with each call, and draws its negatives anew
        torch.manual_seed(2)
        student = Outputs(values[0], dict(zip(step.student.features, values[1:], strict=True)))
        result: Tensor = objective(DistillationBatch(student, step.teacher, step.labels, step.indices, step.epoch))
        return result

    direction = [torch.randn_like(value) for value in inputs]
    exact = torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)
    slope = sum((gradient * along).sum() for gradient, along in zip(exact, direction, strict=True) if gradient is not None)
    h = 1e-6
    with torch.no_grad():
        ahead, behind = (
            loss(*(value + sign * h * along for value, along in zip(inputs, direction, strict=True))) for sign in (1, -1)
        )
    assert torch.as_tensor(slope).item() == pytest.approx(((ahead - behind) / (2 * h)).item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TOKENS])
def test_every_weight_of_the_method_and_every_output_of_the_student_is_taught(name: str) -> None:
    planned, *_ = networks({"name": name} | SIZES.get(name, {}))
    objective, step = seeded_objective(planned), made_up_step(planned)
    objective(step).backward()
    unmoved = [path for path, weight in objective.named_parameters() if weight.grad is None]
    assert not unmoved
    assert step.student.logits.grad is not None
    assert all(feature.grad is not None for feature in step.student.features.values())


def test_the_methods_in_which_rows_have_weights_are_means_over_rows() -> None:
    weighing = {name for name, page in METHODS.items() if page.weighs_rows} | {"labels"}
    assert weighing == MEANS - {"embedding"}


@pytest.mark.parametrize("name", sorted(name for name in METHODS if METHODS[name].weighs_rows))
def test_a_row_counts_by_its_weight(name: str) -> None:
    """The mean of each row's own loss times its weight; so a row of weight 2 is a row twice, and one of weight 0 is none."""
    planned, *_ = networks({"name": name} | SIZES.get(name, {}))
    objective, step = seeded_objective(planned), made_up_step(planned)
    weights = torch.tensor([2.0, 0.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)

    def rows_of(outputs: Outputs | None, rows: Tensor) -> Outputs:
        assert outputs is not None
        return Outputs(outputs.logits[rows], {path: feature[rows] for path, feature in outputs.features.items()})

    def loss(rows: list[int], **changes: Any) -> float:
        at = torch.tensor(rows)
        batch = replace(step, student=rows_of(step.student, at), teacher=rows_of(step.teacher, at), labels=step.labels[at])
        value: Tensor = objective(replace(batch, indices=at, **changes))
        return value.item()

    alone = [loss([row]) for row in range(6)]
    assert loss(list(range(6)), weights=weights) == pytest.approx((torch.tensor(alone) * weights).mean().item(), rel=1e-6)
    assert loss([0, 3], weights=torch.tensor([4 / 3, 2 / 3])) == pytest.approx(loss([0, 0, 3]), rel=1e-6)


def test_terms_are_summed_by_their_weights_and_labels_count_where_they_are_named() -> None:
    terms = [{"name": "labels", "weight": 0.5}, {"name": "dkd", "weight": 2.0, "warmup_epochs": 0}, {"name": "nst"}]
    summed, *_ = networks({"terms": terms})
    dkd, *_ = networks({"name": "dkd", "warmup_epochs": 0, "label_weight": 0})
    nst, *_ = networks({"name": "nst", "label_weight": 0})
    step = made_up_step(summed)
    value = seeded_objective(summed)(step).item()
    parts = [seeded_objective(planned)(step).item() for planned in (dkd, nst)]
    assert value == pytest.approx(
        0.5 * label_loss(TARGETS, step.student.logits, step.labels).item() + 2 * parts[0] + parts[1], rel=1e-9
    )


def test_a_warm_up_grows_with_the_epochs() -> None:
    planned, *_ = networks({"name": "dkd", "label_weight": 0})
    objective, step = seeded_objective(planned), made_up_step(planned)
    at = [
        objective(DistillationBatch(step.student, step.teacher, step.labels, step.indices, epoch)).item()
        for epoch in (0, 10, 20, 40)
    ]
    assert at[0] == 0
    assert at[1] == pytest.approx(at[2] / 2)
    assert at[2] == at[3]


def test_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownLayer, match=r"no layer 'layer9'; it has conv1, bn1, .*layer1"):
        networks({"name": "fitnet", "layers": {"student": ["features.3"], "teacher": ["layer9"]}})


def test_layers_that_cannot_be_compared_are_refused() -> None:
    planned, *_ = networks({"name": "attention-transfer", "layers": {"student": ["features.3"], "teacher": ["fc"]}})
    with pytest.raises(UnfitLayers, match="compares maps"):
        seeded_objective(planned)


# ------------------------------------------------------------ soft targets


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("label_weight", [0.0, 0.1, 1.0])
def test_gradients_agree_with_finite_differences(
    batch: tuple[Tensor, Tensor, Tensor], divergence: Any, label_weight: float
) -> None:
    student, teacher, labels = batch
    method = SoftTargets(temperature=2.5, divergence=divergence, label_weight=label_weight)

    def loss(logits: Tensor) -> Tensor:
        return soft_targets(method, TARGETS, of(logits, teacher, labels))

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),))


def test_cross_entropy_is_the_kl_divergence_and_the_teachers_entropy(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = batch
    kl, cross_entropy = (
        soft_targets(SoftTargets(temperature=3.0, divergence=name, label_weight=0.0), TARGETS, of(student, teacher, labels))
        for name in ("kl", "cross-entropy")
    )
    probabilities = torch.softmax(teacher / 3.0, dim=-1)
    entropy = -(probabilities * probabilities.log()).sum(dim=-1).mean()

    assert cross_entropy.item() == pytest.approx((kl + 9.0 * entropy).item(), rel=1e-12)


def test_mse_is_on_the_logits_themselves(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = batch
    cold, hot = (
        soft_targets(SoftTargets(temperature=t, divergence="mse", label_weight=0.0), TARGETS, of(student, teacher, labels))
        for t in (1, 20)
    )

    assert cold.item() == hot.item() == pytest.approx(((student - teacher) ** 2).mean().item(), rel=1e-12)


def test_the_label_weight_mixes_the_two_losses(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = batch
    soft, hard, mixed = (
        soft_targets(SoftTargets(label_weight=w), TARGETS, of(student, teacher, labels)).item() for w in (0.0, 1.0, 0.3)
    )

    assert hard == functional.cross_entropy(student, labels).item()
    assert mixed == pytest.approx(0.7 * soft + 0.3 * hard, rel=1e-12)


def test_a_student_like_its_teacher_has_no_loss(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    _, teacher, labels = batch

    assert kl_divergence(teacher, teacher, temperature=4.0).item() == pytest.approx(0.0, abs=1e-12)
    assert decoupled(teacher, teacher, labels, alpha=1, beta=8, temperature=4).item() == pytest.approx(0.0, abs=1e-12)
    assert correlation(teacher, teacher, beta=1, gamma=1, temperature=1).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda student, teacher: kl_divergence(student, teacher, temperature=1.0),
        lambda student, teacher: decoupled(student, teacher, torch.tensor([0]), alpha=1, beta=8, temperature=1.0),
    ],
)
def test_a_teacher_certain_beyond_float32_gives_a_finite_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    teacher = torch.tensor([[500.0, 0.0, -500.0]])
    student = torch.zeros(1, 3, requires_grad=True)

    value = loss(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)

    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_compared_in_float32(dtype: torch.dtype) -> None:
    outputs = Outputs(torch.randn(4, 3).to(dtype), {"layer1": torch.randn(4, 2).to(dtype)}).at_least_float32()

    assert outputs.logits.dtype is torch.float32
    assert outputs.features["layer1"].dtype is torch.float32


def test_each_method_of_the_spec_has_one_loss() -> None:
    assert LOSSES.keys() == METHODS.keys() - OF_TOKENS
    assert TOKEN_LOSSES.keys() == OF_TOKENS - {"sequence"}, "which is the cross-entropy with the teacher's texts"
    assert all(method.model_fields["name"].annotation.__args__ == (name,) for name, method in METHODS.items())  # type: ignore[union-attr]


def test_a_sum_is_a_method_of_its_own() -> None:
    assert isinstance(job({"terms": [{"name": "soft-targets", "label_weight": 0.1}]}).method, SumOfTerms)
    assert isinstance(job({}).method, SoftTargets)


def test_hidden_states_of_one_direction_cost_distilbert_nothing() -> None:
    """The outputs' part at its published weight is left, τ² and all."""
    layers = {"student": ["classifier.2"], "teacher": ["classifier.2"]}
    spec = DistilBert(name="distilbert", layers=Layers(**layers), label_weight=0)
    shapes = {"classifier.2": torch.Size((5,))}
    pairs = LayerPairs(("classifier.2",), ("classifier.2",))
    loss = LOSSES["distilbert"](spec, LossContext(TARGETS, torch.arange(6), pairs, shapes, shapes))
    hidden, logits, teacher_logits = (torch.randn(6, width, dtype=torch.float64) for width in (5, NUM_CLASSES, NUM_CLASSES))
    ours, theirs = Outputs(logits, {"classifier.2": hidden}), Outputs(teacher_logits, {"classifier.2": 3 * hidden})
    value = loss(DistillationBatch(ours, theirs, torch.arange(6), torch.arange(6)))
    assert value.item() == pytest.approx(5 * kl_divergence(logits, teacher_logits, temperature=2.0).item(), rel=1e-9)
    opposite = Outputs(teacher_logits, {"classifier.2": -hidden})
    assert loss(DistillationBatch(ours, opposite, torch.arange(6), torch.arange(6))).item() == pytest.approx(
        value.item() + 2, rel=1e-9
    )
