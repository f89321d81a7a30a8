"""A training begins with the numbers that its seed draws first, whatever is computed before its first step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from service.spec import parse_spec
from worker.distributed.rng import preserved_generators, seed_everything
from worker.job.early_checks import check_early
from worker.job.job_data import load_job_data
from worker.job.networks import Networks
from worker.job.plan import plan_of
from worker.job.reporting import PhaseReporter
from worker.job.roles import CONTROL, STUDENT, Role
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.job.trainings import TrainingBuilder
from worker.protocol import Event, StopRequest
from worker.training.mutual import MutualTraining

CPU, TEACHER = torch.device("cpu"), Role("teacher")
TEACHER_CNN: dict[str, Any] = {"name": "resnet8x4"}
STUDENT_CNN: dict[str, Any] = {"name": "small-cnn", "width": 4}
VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "patch_size": 4,
}


class Quiet:
    def emit(self, event: Event) -> None:
        pass

    def stop_request(self) -> StopRequest | None:
        return None


class Builds:
    """Counts the networks that are built, by role."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self.roles: list[Role] = []

    def __call__(self, role: Role) -> nn.Module:
        self.roles.append(role)
        return self._networks.build(role)


def builder(
    tmp_path: Path, method: dict[str, Any], *, teacher: dict[str, Any] = TEACHER_CNN, student: dict[str, Any] | None = None
) -> tuple[TrainingBuilder, Builds]:
    spec = parse_spec(
        {
            "task": "image-classification",
            "dataset": {"source": "builtin:digits"},
            "teacher": {"architecture": teacher},
            "student": student or {"architecture": STUDENT_CNN},
            "method": method,
            "training": {"max_steps": 2, "seed": 7},
            "evaluation": {"control": True},
        }
    )
    networks = Networks(spec, load_job_data(spec, {}), device=CPU, inputs={}, scratch=tmp_path)
    builds, phases = Builds(networks), PhaseReporter(Quiet())
    return TrainingBuilder(networks, builds, phases, TeacherOutputProvider(networks, phases, cache=None)), builds


@pytest.mark.parametrize("method", [{"name": "soft-targets"}, {"name": "fitnet"}, {"name": "distillation-network"}], ids=str)
def test_a_network_is_built_once_and_its_seed_alone_decides_on_its_first_weights(method: dict[str, Any], tmp_path: Path) -> None:
    trainings, builds = builder(tmp_path, method)
    networks, plan = trainings.networks, plan_of(trainings.networks.spec)
    teacher = trainings.build(plan.training_of(TEACHER)).network
    teachers = networks.together({TEACHER: networks.as_trained(TEACHER, teacher)})
    student = trainings.build(plan.training_of(STUDENT), teachers=teachers)
    control = trainings.build(plan.training_of(CONTROL), num_steps=1)
    assert builds.roles == [TEACHER, STUDENT, CONTROL]
    for role, training in ((STUDENT, student), (CONTROL, control)):
        seed_everything(7)
        for one, other in zip(training.network.parameters(), networks.build(role).parameters(), strict=True):
            assert torch.equal(one, other)
    assert (student.last_step, control.last_step) == (2, 1)


def test_of_two_peers_each_is_built_once_and_they_begin_with_different_weights(tmp_path: Path) -> None:
    trainings, builds = builder(tmp_path, {"name": "deep-mutual"}, teacher=STUDENT_CNN)
    training = trainings.build(plan_of(trainings.networks.spec).training_of(STUDENT))
    assert isinstance(training, MutualTraining)
    assert builds.roles == [STUDENT, TEACHER]
    seed_everything(7)
    for role, network in ((STUDENT, training.network), (TEACHER, training.peer.network)):
        for one, other in zip(network.parameters(), trainings.networks.build(role).parameters(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(next(training.network.parameters()), next(training.peer.network.parameters()))


def test_what_is_drawn_in_between_changes_nothing() -> None:
    seed_everything(3)
    with preserved_generators(CPU):
        torch.rand(5)
    drawn = torch.rand(2)
    seed_everything(3)
    assert torch.equal(drawn, torch.rand(2))


@pytest.mark.parametrize(
    "student",
    [
        {"architecture": {"name": "resnet8x4"}},
        {"architecture": {"name": "transformers", "model_type": "vit", "config": VIT | {"num_hidden_layers": 1}}},
        {"architecture": {"name": "transformers", "model_type": "vit", "config": VIT}, "source": "teacher-layers"},
    ],
    ids=["with-running-statistics", "of-the-library", "with-its-teachers-layers"],
)
@pytest.mark.parametrize("method", ["soft-targets", "distillation-network"])
def test_a_student_is_built_once_and_its_check_leaves_it_as_it_is(student: dict[str, Any], method: str, tmp_path: Path) -> None:
    teacher = {"name": "transformers", "model_type": "vit", "config": VIT}
    trainings, builds = builder(tmp_path, {"name": method}, teacher=teacher, student=student)
    networks, planned = trainings.networks, plan_of(trainings.networks.spec).training_of(STUDENT)
    check_early(networks, trainings.build_ahead(planned))
    seed_everything(8)
    alone = replace(planned, taught_by=())
    training = trainings.build(alone)
    assert builds.roles == [STUDENT]
    draws = torch.rand(3)
    seed_everything(7)
    fresh = networks.build(STUDENT)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(training.network.state_dict()[name], tensor), name
    assert training.network.training
    seed_everything(7)
    trainings.build(alone)
    assert torch.equal(draws, torch.rand(3))
