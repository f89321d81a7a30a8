"""The distillation network: what it reads, and that it ends as a plain network."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.architectures import SmallCnn
from tests.unit.worker.models.test_build import tiny
from worker.models import build_network
from worker.models.informed import InformedNetwork
from worker.targets import Target, Targets

TARGETS = Targets((Target("digit", ("a", "b", "c")), Target("size", None)))
SHAPE = (1, 8, 8)
IMAGES = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def informed(architecture: Any = None, *, extra_input: bool = True) -> InformedNetwork:
    torch.manual_seed(0)
    architecture = architecture or SmallCnn(name="small-cnn", width=2)
    body = build_network(architecture, input_shape=SHAPE, num_outputs=2 * TARGETS.width)
    network = InformedNetwork(body, TARGETS, extra_input=extra_input)
    torch.nn.init.normal_(network.reader.weight)
    return network.eval()


@torch.no_grad()
def parts(network: InformedNetwork) -> tuple[Tensor, Tensor]:
    """What the features say by themselves, and the guess."""
    base, guess = torch.split(network.body(IMAGES), TARGETS.width, dim=-1)
    return base, guess


@torch.no_grad()
def test_it_reads_the_teachers_output_where_it_is_given_and_its_own_guess_where_not() -> None:
    network, taught = informed(), torch.randn(5, TARGETS.width)
    base, guess = parts(network)
    reading = network.reader.weight @ network.centring

    torch.testing.assert_close(network(IMAGES), base + guess @ reading.T)
    torch.testing.assert_close(network(IMAGES, taught), base + taught @ reading.T)
    alone = torch.tensor([True, False, True, False, False])
    read = torch.where(alone.unsqueeze(1), guess, taught)
    torch.testing.assert_close(network(IMAGES, taught, alone), base + read @ reading.T)


@torch.no_grad()
def test_what_a_teacher_says_nothing_of_is_read_from_the_guess() -> None:
    network, taught = informed(), torch.randn(5, TARGETS.width)
    _, guess = parts(network)
    taught[:, 3] = math.nan
    completed = torch.cat([taught[:, :3], guess[:, 3:]], dim=1)
    torch.testing.assert_close(network(IMAGES, taught), network(IMAGES, completed))


@torch.no_grad()
def test_a_constant_added_to_the_teachers_logits_changes_nothing_and_to_its_number_something() -> None:
    network, taught = informed(), torch.randn(5, TARGETS.width)
    shifted = taught + torch.tensor([7.0, 7.0, 7.0, 0.0])
    torch.testing.assert_close(network(IMAGES, shifted), network(IMAGES, taught), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(IMAGES, taught + torch.tensor([0.0, 0.0, 0.0, 1.0])), network(IMAGES, taught))


@pytest.mark.parametrize("extra_input", [True, False])
@pytest.mark.parametrize("architecture", [SmallCnn(name="small-cnn", width=2), tiny("vit")], ids=str)
@torch.no_grad()
def test_it_ends_as_a_plain_network_that_says_what_it_said_alone(architecture: Any, extra_input: bool) -> None:
    network = informed(architecture, extra_input=extra_input)
    plain = build_network(architecture, input_shape=SHAPE, num_outputs=TARGETS.width)
    plain.load_state_dict(network.folded(plain.state_dict()))
    torch.testing.assert_close(plain.eval()(IMAGES), network(IMAGES), atol=1e-5, rtol=1e-5)


def test_without_the_extra_input_the_teacher_makes_no_difference() -> None:
    network = informed(extra_input=False)
    assert not network.reads_teacher
    with torch.no_grad():
        assert torch.equal(network(IMAGES, torch.randn(5, TARGETS.width)), network(IMAGES))
