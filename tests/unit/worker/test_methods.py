"""The losses against values of public reference implementations, and their gradients against finite differences."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from service.spec.methods import METHODS, SoftTargets
from worker.methods import LOSSES, label_loss, soft_targets
from worker.methods.soft_targets import kl_divergence

# Another file of the same form may be named.
REFERENCE_FILE = Path(os.environ.get("REFERENCE_LOSSES", Path(__file__).parents[2] / "data" / "losses.json"))

DIVERGENCES = ("kl", "cross-entropy", "mse")


def reference_tensor(description: dict[str, Any]) -> Tensor:
    shape = description["shape"]
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    values: Tensor = (description["scale"] * torch.sin(description["freq"] * index + description["phase"])).reshape(shape)
    return values


def reference_cases() -> list[Any]:
    cases = json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))["cases"]
    return [
        pytest.param(case["inputs"], name, value, id=f"{number} {name}")
        for number, case in enumerate(cases)
        for name, value in case["values"].items()
        if name.startswith("soft_targets")
    ]


@pytest.mark.parametrize(("inputs", "name", "expected"), reference_cases())
def test_soft_targets_give_the_reference_values(inputs: dict[str, Any], name: str, expected: float) -> None:
    temperature = float(name.split("T=")[1].split()[0])
    method = SoftTargets(temperature=temperature, label_weight=0.0)
    student, teacher = reference_tensor(inputs["student_logits"]), reference_tensor(inputs["teacher_logits"])

    loss = soft_targets(method, student, teacher, torch.tensor(inputs["labels"]))

    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.tensor([0, 4, 2, 2, 1, 3])


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("label_weight", [0.0, 0.1, 1.0])
def test_gradients_agree_with_finite_differences(
    batch: tuple[Tensor, Tensor, Tensor], divergence: Any, label_weight: float
) -> None:
    student, teacher, labels = batch
    method = SoftTargets(temperature=2.5, divergence=divergence, label_weight=label_weight)

    def loss(logits: Tensor) -> Tensor:
        return soft_targets(method, logits, teacher, labels)

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),))


def test_cross_entropy_is_the_kl_divergence_and_the_teachers_entropy(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = batch
    kl, cross_entropy = (
        soft_targets(SoftTargets(temperature=3.0, divergence=name, label_weight=0.0), student, teacher, labels)
        for name in ("kl", "cross-entropy")
    )
    probabilities = torch.softmax(teacher / 3.0, dim=-1)
    entropy = -(probabilities * probabilities.log()).sum(dim=-1).mean()

    assert cross_entropy.item() == pytest.approx((kl + 9.0 * entropy).item(), rel=1e-12)


def test_mse_is_on_the_logits_themselves(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = batch
    cold, hot = (
        soft_targets(SoftTargets(temperature=t, divergence="mse", label_weight=0.0), student, teacher, labels) for t in (1, 20)
    )

    assert cold.item() == hot.item() == pytest.approx(((student - teacher) ** 2).mean().item(), rel=1e-12)


def test_the_label_weight_mixes_the_two_losses(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = batch
    soft, hard, mixed = (soft_targets(SoftTargets(label_weight=w), student, teacher, labels).item() for w in (0.0, 1.0, 0.3))

    assert hard == functional.cross_entropy(student, labels).item()
    assert mixed == pytest.approx(0.7 * soft + 0.3 * hard, rel=1e-12)


def test_a_student_like_its_teacher_has_no_loss(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    _, teacher, _ = batch

    assert kl_divergence(teacher, teacher, temperature=4.0).item() == pytest.approx(0.0, abs=1e-12)


def test_a_teacher_certain_beyond_float32_gives_a_finite_loss() -> None:
    teacher = torch.tensor([[500.0, 0.0, -500.0]])
    student = torch.zeros(1, 3, requires_grad=True)

    loss = kl_divergence(student, teacher, temperature=1.0)
    (gradient,) = torch.autograd.grad(loss, student)

    assert loss.item() == pytest.approx(torch.log(torch.tensor(3.0)).item(), rel=1e-6)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 3, dtype=torch.float32).to(dtype)
    labels = torch.tensor([0, 1, 2, 0])

    assert soft_targets(SoftTargets(), logits, logits.flip(0), labels).dtype is torch.float32
    assert label_loss(logits, labels).dtype is torch.float32


def test_each_method_of_the_spec_has_a_loss() -> None:
    assert LOSSES.keys() == METHODS.keys()
