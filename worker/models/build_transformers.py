"""Builds networks of ``transformers`` of any task.

Invariant: channels, image size, vocabulary and number of outputs come from the data; no code and no weights come from outside the
library and the folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig

from service.spec.architectures import TransformersNetwork as TransformersArchitecture
from service.spec.shapes import InputShape, TokenShape
from worker.models.errors import UnfitArchitecture
from worker.models.network_kind import NetworkKind

LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""The library has no error of its own for an invalid config: its constructors raise any of these."""


def build_transformers_network(
    architecture: TransformersArchitecture, *, kind: NetworkKind, input_shape: InputShape, num_outputs: int
) -> nn.Module:
    """Builds the network that the spec describes, freshly initialised from torch's global generator.

    Raises:
        UnfitArchitecture: the library rejects the config, or the network cannot read such an input.
    """
    with _library_errors_as_unfit(architecture, input_shape):
        network = _construct(architecture, kind=kind, input_shape=input_shape, num_outputs=num_outputs)
        _try(network, kind=kind, input_shape=input_shape, num_outputs=num_outputs)
    network.train()
    return network


def build_transformers_on_meta(
    architecture: TransformersArchitecture, *, kind: NetworkKind, input_shape: InputShape, num_outputs: int
) -> nn.Module:
    """Builds the network on torch's ``meta`` device, without a trial forward pass.

    Raises:
        UnfitArchitecture: the library rejects the config.
    """
    with _library_errors_as_unfit(architecture, input_shape), torch.device("meta"):
        network = _construct(architecture, kind=kind, input_shape=input_shape, num_outputs=num_outputs)
    network.train()
    return network


def _construct(
    architecture: TransformersArchitecture, *, kind: NetworkKind, input_shape: InputShape, num_outputs: int
) -> nn.Module:
    decided = kind.config_fields(architecture.model_type, input_shape, num_outputs=num_outputs)
    # An empty list of architectures: the library reads it where a model type has several classifiers, and takes the first.
    config = AutoConfig.for_model(architecture.model_type, **{**architecture.config, **decided, "architectures": []})
    return kind.wrap_built(kind.auto_class.from_config(config, trust_remote_code=False), input_shape=input_shape)


def _try(network: nn.Module, *, kind: NetworkKind, input_shape: InputShape, num_outputs: int) -> None:
    """Runs two blank samples forward: only that detects a kernel larger than the image, or a window that does not fit."""
    expected = kind.output_shape(network, input_shape, num_outputs=num_outputs)
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = network(kind.blank(input_shape, 2))
    if outputs.shape != (2, *expected):
        raise ValueError(f"the outputs have shape {tuple(outputs.shape[1:])}, not ({', '.join(map(str, expected))},)")


@contextmanager
def _library_errors_as_unfit(architecture: TransformersArchitecture, input_shape: InputShape) -> Iterator[None]:
    try:
        yield
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()}"
        raise UnfitArchitecture(
            f"transformers cannot build {architecture.model_type!r} with {architecture.config} for "
            f"{_described(input_shape)}: {reason[:500]}"
        ) from error


def _described(input_shape: InputShape) -> str:
    match input_shape:
        case TokenShape():
            return f"texts of {input_shape.length} tokens of {input_shape.vocabulary}"
        case (channels, height, width):
            return f"images of {height}x{width} pixels and {channels} channels"
    return f"waveforms of {input_shape[0]} samples"
