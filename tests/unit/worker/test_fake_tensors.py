"""Shapes computed without values are those of the network that is built."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_output_layer import CASES, samples
from worker.data.tensors import zeros_like
from worker.fake_tensors import is_on_meta, with_fake_tensors
from worker.methods.layer_pairs import output_width, shapes_of
from worker.models import build_network, build_on_meta

NAMES = ["resnet20", "vit", "swin", "bert", "distilbert", "audio-spectrogram-transformer"]


def layers(network: nn.Module) -> list[str]:
    return list(getattr(network, "stage_layers", ()))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_on_the_meta_device_has_the_shapes_of_one_that_is_built(name: str) -> None:
    architecture, shape = CASES[name]
    options: dict[str, Any] = {"kind": kind_of(architecture), "input_shape": shape, "num_outputs": 3}
    built, on_meta, inputs = build_network(architecture, **options), build_on_meta(architecture, **options), samples(shape)[:2]
    assert layers(built)
    assert (is_on_meta(built), is_on_meta(on_meta)) == (False, True)
    assert shapes_of(on_meta, layers(on_meta), inputs) == shapes_of(built, layers(built), inputs)
    assert output_width(on_meta, inputs) == output_width(built, inputs) == 3


def test_a_network_that_looks_at_values_says_so() -> None:
    architecture, shape = CASES["wav2vec2"]
    on_meta = build_on_meta(architecture, kind=kind_of(architecture), input_shape=shape, num_outputs=3)
    with pytest.raises((RuntimeError, AssertionError)):
        output_width(on_meta, samples(shape)[:2])


def test_the_networks_own_tensors_are_back_after_the_block() -> None:
    network = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.Linear(4, 4, device="meta"))
    network[1].weight = network[0].weight
    before = dict(network.named_parameters())
    with with_fake_tensors(network):
        assert network[0].weight is network[1].weight, "tied weights stay tied"
        assert network(zeros_like(torch.ones(2, 4))).shape == (2, 4)
    assert all(before[name] is parameter for name, parameter in network.named_parameters())
