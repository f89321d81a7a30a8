"""Builds networks from the architectures of the spec. ``BUILDERS`` has one entry for each of the
project's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from service.spec.architectures import Architecture, CifarResNetName, ShuffleNetName, VggName, WideResNetName
from service.spec.fit import architecture_faults
from service.spec.shapes import InputShape
from worker.models.build_transformers import build_transformers_network, build_transformers_on_meta
from worker.models.cifar_resnet import build_cifar_resnet
from worker.models.errors import UnfitArchitecture
from worker.models.mobilenet import build_mobilenet
from worker.models.network_kind import NetworkKind
from worker.models.shufflenet import build_shufflenet
from worker.models.small_cnn import build_small_cnn
from worker.models.vgg import build_vgg
from worker.models.wide_resnet import build_wide_resnet

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "small-cnn": build_small_cnn,
    **dict.fromkeys(get_args(CifarResNetName), build_cifar_resnet),
    **dict.fromkeys(get_args(WideResNetName), build_wide_resnet),
    **dict.fromkeys(get_args(VggName), build_vgg),
    "mobilenetv2": build_mobilenet,
    **dict.fromkeys(get_args(ShuffleNetName), build_shufflenet),
}


@dataclass(frozen=True)
class Built:
    """Source of a network: an attribute of the network, so that saving one needs nothing else."""

    architecture: Any
    input_shape: InputShape
    kind: NetworkKind | None = None
    """Of a network of ``transformers``; None for one of the project's own."""


def build_network(
    architecture: Architecture, *, input_shape: InputShape, num_outputs: int, kind: NetworkKind | None = None
) -> nn.Module:
    """Builds a freshly initialised network, in ``train()``, from inputs (B, …) of that shape to outputs (B, W).

    ``kind`` is that of a network of ``transformers``; the project's own are the same for every task. The weights come from
    torch's global generator: seed it for the same network again.

    Raises:
        UnfitArchitecture: the architecture does not fit such inputs; the message says what to change.
    """
    task = None if kind is None else kind.task
    faults = architecture_faults(architecture, input_shape=input_shape, num_outputs=num_outputs, task=task)
    if faults:
        raise UnfitArchitecture("; ".join(f"{fault.pointer}: {fault.message}" for fault in faults))
    if architecture.name == "transformers":
        kind = _needed(kind)
        network = build_transformers_network(architecture, kind=kind, input_shape=input_shape, num_outputs=num_outputs)
        remember(network, Built(architecture=architecture, input_shape=input_shape, kind=kind))
        return network
    network = BUILDERS[architecture.name](architecture, input_shape=input_shape, num_outputs=num_outputs)
    remember(network, Built(architecture=architecture, input_shape=input_shape))
    return network


def build_on_meta(
    architecture: Architecture, *, input_shape: InputShape, num_outputs: int, kind: NetworkKind | None = None
) -> nn.Module:
    """Builds the network on torch's ``meta`` device: tensors have shapes without values, so any size takes no memory.

    Raises:
        UnfitArchitecture: the architecture does not fit such inputs.
    """
    if architecture.name == "transformers":
        return build_transformers_on_meta(architecture, kind=_needed(kind), input_shape=input_shape, num_outputs=num_outputs)
    with torch.device("meta"):
        return build_network(architecture, input_shape=input_shape, num_outputs=num_outputs)


def _needed(kind: NetworkKind | None) -> NetworkKind:
    if kind is None:
        raise TypeError("a network of transformers is built for a task: give its kind")
    return kind


def remember(network: nn.Module, built: Built) -> None:
    """Attaches ``built`` to the network, for :func:`built_from`."""
    network.built = built  # type: ignore[assignment]


def built_from(network: nn.Module) -> Built:
    """Returns the architecture and input shape that the network was built from."""
    built = getattr(network, "built", None)
    if not isinstance(built, Built):
        raise TypeError(f"{type(network).__name__} was not made by build_network or load_network")
    return built


def num_parameters(network: nn.Module) -> int:
    """Number of weights, trainable and frozen together; buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())
