"""The distillation network: what it reads, and that it ends as a plain network."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.architectures import SmallCnn
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import tiny
from worker.models import build_network
from worker.models.privileged import PrivilegedNetwork, fold_weights
from worker.targets import Target, Targets

TARGETS = Targets((Target("digit", ("a", "b", "c")), Target("size", None)))
SHAPE = (1, 8, 8)
IMAGES = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def privileged(architecture: Any = None, *, extra_input: bool = True) -> PrivilegedNetwork:
    torch.manual_seed(0)
    architecture = architecture or SmallCnn(name="small-cnn", width=2)
    body = build_network(architecture, kind=kind_of(architecture), input_shape=SHAPE, num_outputs=2 * TARGETS.width)
    network = PrivilegedNetwork(body, TARGETS, extra_input=extra_input)
    torch.nn.init.normal_(network.reader.weight)
    return network.eval()


@torch.no_grad()
def parts(network: PrivilegedNetwork) -> tuple[Tensor, Tensor]:
    """What the features say by themselves, and the teacher head."""
    base, teacher_head = torch.split(network.body(IMAGES), TARGETS.width, dim=-1)
    return base, teacher_head


@torch.no_grad()
def test_it_reads_the_teachers_output_where_it_is_given_and_its_own_teacher_head_where_not() -> None:
    network, teacher_outputs = privileged(), torch.randn(5, TARGETS.width)
    base, teacher_head = parts(network)
    reading = network.reader.weight @ network.centring

    torch.testing.assert_close(network(IMAGES), base + teacher_head @ reading.T)
    torch.testing.assert_close(network(IMAGES, teacher_outputs), base + teacher_outputs @ reading.T)
    alone = torch.tensor([True, False, True, False, False])
    read = torch.where(alone.unsqueeze(1), teacher_head, teacher_outputs)
    torch.testing.assert_close(network(IMAGES, teacher_outputs, alone), base + read @ reading.T)


@torch.no_grad()
def test_what_a_teacher_says_nothing_of_is_read_from_the_teacher_head() -> None:
    network, teacher_outputs = privileged(), torch.randn(5, TARGETS.width)
    _, teacher_head = parts(network)
    teacher_outputs[:, 3] = math.nan
    completed = torch.cat([teacher_outputs[:, :3], teacher_head[:, 3:]], dim=1)
    torch.testing.assert_close(network(IMAGES, teacher_outputs), network(IMAGES, completed))


@torch.no_grad()
def test_a_constant_added_to_the_teachers_logits_changes_nothing_and_to_its_number_something() -> None:
    network, teacher_outputs = privileged(), torch.randn(5, TARGETS.width)
    shifted = teacher_outputs + torch.tensor([7.0, 7.0, 7.0, 0.0])
    torch.testing.assert_close(network(IMAGES, shifted), network(IMAGES, teacher_outputs), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(
        network(IMAGES, teacher_outputs + torch.tensor([0.0, 0.0, 0.0, 1.0])), network(IMAGES, teacher_outputs)
    )


@pytest.mark.parametrize("extra_input", [True, False])
@pytest.mark.parametrize("architecture", [SmallCnn(name="small-cnn", width=2), tiny("vit")], ids=str)
@torch.no_grad()
def test_it_ends_as_a_plain_network_that_says_what_it_said_alone(architecture: Any, extra_input: bool) -> None:
    network = privileged(architecture, extra_input=extra_input)
    plain = build_network(architecture, kind=kind_of(architecture), input_shape=SHAPE, num_outputs=TARGETS.width)
    folded = fold_weights(network.state_dict(), plain.state_dict(), TARGETS, extra_input=extra_input)
    plain.load_state_dict(folded)
    torch.testing.assert_close(plain.eval()(IMAGES), network(IMAGES), atol=1e-5, rtol=1e-5)


def test_without_the_extra_input_the_teacher_makes_no_difference() -> None:
    network = privileged(extra_input=False)
    assert not network.reads_teacher
    with torch.no_grad():
        assert torch.equal(network(IMAGES, torch.randn(5, TARGETS.width)), network(IMAGES))
