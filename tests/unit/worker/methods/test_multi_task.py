"""The losses of the distillation network and of several targets, against their formulas."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.methods import DistillationNetwork, MultiTask
from worker.methods import DistillationBatch, Outputs
from worker.methods.layer_pairs import TEACHER_HEAD
from worker.methods.multi_task import MultiTaskLoss, distillation_network, teacher_losses
from worker.methods.response import kl_divergence
from worker.targets import Target, Targets, label_loss, target_losses
from worker.training.criterion import extra_inputs

TARGETS = Targets((Target("digit", ("a", "b", "c")), Target("size", None)))
LABELS = torch.tensor([[0.0, 1.0], [2.0, math.nan], [math.nan, 3.0], [1.0, 0.5]])


def made(seed: int) -> Tensor:
    return torch.randn(4, TARGETS.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(*, teacher: Tensor | None = None) -> DistillationBatch:
    student = Outputs(made(0), {TEACHER_HEAD: made(2)})
    return DistillationBatch(student, Outputs(made(1) if teacher is None else teacher), LABELS, torch.arange(4))


def losses(student: Tensor, teacher: Tensor, **changes: Any) -> Tensor:
    return teacher_losses(TARGETS, student, teacher, **{"divergence": "kl", "temperature": 3.0, **changes})


def test_each_target_is_compared_with_the_teacher_by_its_own_loss() -> None:
    student, teacher = made(0), made(1)
    digit, size = losses(student, teacher).tolist()
    assert digit == pytest.approx(kl_divergence(student[:, :3], teacher[:, :3], temperature=3.0).item())
    assert size == pytest.approx(((student[:, 3] - teacher[:, 3]) ** 2).mean().item())
    assert losses(teacher, teacher).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_what_the_teacher_says_nothing_of_counts_nothing() -> None:
    student, teacher = made(0).requires_grad_(), made(1)
    teacher[:, :3] = math.nan
    digit, size = losses(student, teacher)
    (gradient,) = torch.autograd.grad(digit + size, student)
    assert digit.item() == 0
    assert size.item() > 0
    assert bool(gradient.isfinite().all())
    assert gradient[:, :3].count_nonzero() == 0


def test_the_distillation_networks_loss_is_the_labels_and_lambda_times_the_teacher_heads() -> None:
    method = DistillationNetwork(name="distillation-network", teacher_weight=0.5, label_weight=2.0, temperature=3.0)
    expected = 2.0 * label_loss(TARGETS, made(0), LABELS) + 0.5 * losses(made(2), made(1)).sum()
    assert distillation_network(method, TARGETS, step()).item() == pytest.approx(expected.item())


def test_several_tasks_are_summed_by_their_weights() -> None:
    method = MultiTask(name="multi-task", teacher_weight=0.5, temperature=3.0, target_weights={"size": 0.25})
    parts = target_losses(TARGETS, made(0), LABELS) + 0.5 * losses(made(0), made(1))
    assert MultiTaskLoss(method, TARGETS)(step()).item() == pytest.approx((parts[0] + 0.25 * parts[1]).item())


def test_learned_variances_weigh_the_tasks_and_are_taught() -> None:
    module = MultiTaskLoss(MultiTask(name="multi-task", temperature=3.0, weighting="uncertainty"), TARGETS).double()
    parts = target_losses(TARGETS, made(0), LABELS) + losses(made(0), made(1))
    assert module.log_variances is not None
    assert module(step()).item() == pytest.approx(0.5 * parts.sum().item()), "variances begin at 1"

    with torch.no_grad():
        module.log_variances.copy_(parts.log())  # where the loss is least: each variance the part's own size
    value = module(step())
    (gradient,) = torch.autograd.grad(value, module.log_variances)
    assert value.item() == pytest.approx(0.5 * (len(TARGETS) + parts.log().sum().item()))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_share_of_samples_that_do_without_their_teacher_rises_to_all() -> None:
    torch.manual_seed(0)
    reading = extra_inputs(DistillationNetwork(name="distillation-network", teacher_dropout=0.2, alone_after=0.5))
    assert reading is not None
    teacher_outputs = torch.randn(2000, 4)
    shares = [reading(teacher_outputs, progress)[1].float().mean().item() for progress in (0.0, 0.25, 0.5, 0.9)]
    assert shares == pytest.approx([0.2, 0.6, 1.0, 1.0], abs=0.05)
    assert extra_inputs(DistillationNetwork(name="distillation-network", extra_input=False)) is None
