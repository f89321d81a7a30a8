"""Networks whose numbers are in the data's units, from networks that were trained on standardised ones.

A folder has the library's own form, so that mean and scale are folded into the output layer. An ONNX graph has them as a last
step: int8 quantizes the inputs of a matrix product, in which the offset that GPT-2's last norm holds would leave nothing of the
rest. B batch, W outputs.
"""

import copy

import torch
from torch import Tensor, nn

from worker.data import Data, first
from worker.data.tensors import Inputs, to_device
from worker.models.output_layer import find_output_layer
from worker.targets import Targets
from worker.trained import TrainedNetwork

_ROUNDINGS = 16
"""Of float32, in a number whose offset is added within the network."""


class NetworkInDataUnits(nn.Module):
    """``scale · outputs + mean``."""

    scale: Tensor
    mean: Tensor

    def __init__(self, network: nn.Module, scale: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", scale.to(torch.float32))
        self.register_buffer("mean", mean.to(torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps inputs (B, …) to outputs (B, W)."""
        outputs: Tensor = self.network(inputs)
        return outputs * self.scale + self.mean


def with_units(network: TrainedNetwork, targets: Targets) -> nn.Module:
    """Wraps a network; returns it as it is if its outputs need no change."""
    if targets.units is None:
        return network.network
    return NetworkInDataUnits(network.network, *targets.units).to(network.device).eval()


def fold_units(network: TrainedNetwork, data: Data) -> nn.Module:
    """Copies a network and folds the units into its output layer; returns it as it is if its outputs need no change.

    Raises:
        NoOutputLayer: the network has no layer to fold them into.
        FixedOffset: the network's outputs have no place for an offset.
    """
    if data.targets.units is None:
        return network.network
    folded = copy.deepcopy(network.network)
    find_output_layer(folded, few_inputs(network, data)).rescale(*data.targets.units)
    return folded


def unfold_units(loaded: TrainedNetwork, data: Data) -> nn.Module:
    """Copies a network that was loaded, so that it predicts the job's numbers standardised, as networks of the job do.

    An offset stays in the outputs that have no place for another.

    Raises:
        NoOutputLayer: the network has no layer to change.
    """
    if data.targets.units is None:
        return loaded.network
    unfolded = copy.deepcopy(loaded.network)
    layer = find_output_layer(unfolded, few_inputs(loaded, data))
    factors, shifts = torch.ones(layer.width, dtype=torch.float64), torch.zeros(layer.width, dtype=torch.float64)
    for scale, mean, place in zip(*data.targets.units, loaded.output_order or range(layer.width), strict=True):
        if place >= 0:
            factors[place], shifts[place] = 1 / scale, -mean / scale
    layer.rescale(factors, shifts if layer.is_shiftable else torch.zeros_like(shifts))
    return unfolded


def few_inputs(network: TrainedNetwork, data: Data) -> Inputs:
    """Some inputs (B, …) as the network reads them."""
    few = network.preprocessing(network.preprocessing.prepare(first(data.splits["train"].inputs, 2)))
    return to_device(few, network.device)


def rounding_of_units(targets: Targets) -> Tensor:
    """What float32 may change in each standardised output (W,) that is far from 0 in its own unit; 0 where none is."""
    if targets.units is None:
        return torch.zeros(targets.width)
    scale, mean = targets.units
    return _ROUNDINGS * torch.finfo(torch.float32).eps * (mean / scale).abs()
