"""Networks that are not trained, with the weights of their linear layers as integers; the one importer of torchao.

Weights are rounded when they are loaded, activations never. Invariant: output layers and embeddings stay in bf16, as does each
layer that the format has no place for, and they are counted; a network of which nothing was quantised is refused.

int8 has one scale for each row of a weight (LLM.int8() without its outliers: Dettmers et al., 2022, arXiv:2208.07339). int4 has a
scale and an offset for each 32 weights of a row (as GPTQ's groups: Frantar et al., 2022, arXiv:2210.17323).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers.pytorch_utils import Conv1D

from worker.free_memory import return_free_memory
from worker.models.errors import UnfitArchitecture
from worker.models.hidden_layers import find_hidden_layers
from worker.models.loading import Loading, held_bytes, is_exact
from worker.quiet import quiet

GROUP = 32
"""Weights that share a scale in int4: larger groups leave out what they do not divide, or lose a hundred times more."""
_TILE = 16
"""Outputs of a layer that the CPU's kernel of int4 computes at once."""
GPU_KERNELS = "mslk"
"""The package with the kernels of int4 on a GPU."""


class UnquantisableNetwork(UnfitArchitecture):
    """The format does not fit the network, or has no kernels here; the message says what to take."""


@dataclass(frozen=True)
class Quantised:
    """What became of a network's linear layers."""

    layers: int
    """Those with integers for weights."""
    left_out: int
    """Linear layers that stay in bf16: output layers, and those whose width int4 does not divide into groups."""
    num_bytes: int
    """Of all weights, as they are held."""


def check_format(format: Literal["int8", "int4"], *, on_gpu: bool) -> None:
    """Raises UnquantisableNetwork if a format's packages are not installed."""
    if find_spec("torchao") is None:
        raise UnquantisableNetwork(f"{format} needs the package torchao, which is not installed here: take bf16")
    if format == "int4" and on_gpu and find_spec(GPU_KERNELS) is None:
        raise UnquantisableNetwork(
            f"int4 on a GPU needs the package {GPU_KERNELS}, which is not installed here: take int8 or bf16, or train on a CPU"
        )


def quantise(network: nn.Module, loading: Loading) -> None:
    """Quantises a network's linear layers in place, one at a time, on the loading's device; puts the rest into bf16.

    Raises:
        UnquantisableNetwork: it has no layer that fits the format.
    """
    format, on_gpu = loading.quantised, loading.device.type == "cuda"
    if format is None:
        raise ValueError(f"{loading.format} is no format of integers")
    check_format(format, on_gpu=on_gpu)
    _replace_conv1d(network)
    layers = [layer for layer in _inner_layers(network) if format == "int8" or _fits_groups(layer)]
    if not layers:
        widths = "" if format == "int8" else f" of a multiple of {GROUP} inputs and {_TILE} outputs"
        raise UnquantisableNetwork(f"it has no linear layer{widths} beside its outputs, so {format} changes nothing: take bf16")
    with quiet("root"), torch.no_grad():
        from torchao.quantization import quantize_

        config = _config(format, on_gpu=on_gpu)
        for layer in layers:
            layer.to(loading.device, torch.bfloat16)
            quantize_(layer, config)
            if not is_quantised(layer):
                raise UnquantisableNetwork(f"{layer} stays as it is in {format}: take bf16")
            layer.register_forward_pre_hook(_in_bf16)
    for module in network.modules():
        for name, own in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if not is_traceable_wrapper_subclass(own):
                dtype = torch.bfloat16 if own.is_floating_point() and not is_exact(name) else own.dtype
                # A copy: a single weight that is still its file's own pages would keep all of them in memory.
                own.data = own.data.to(loading.device, dtype, copy=True)
    return_free_memory()
    network.requires_grad_(False)


def count_quantised(network: nn.Module) -> Quantised:
    """Counts what :func:`quantise` did to a network."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    layers = sum(map(is_quantised, linear))
    held = {id(each): held_bytes(each) for each in (*network.parameters(), *network.buffers())}
    return Quantised(layers, len(linear) - layers, sum(held.values()))


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer's weight is held as integers."""
    weight: Any = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and is_traceable_wrapper_subclass(weight)


def _inner_layers(network: nn.Module) -> Iterator[nn.Linear]:
    """The linear layers of the network's hidden layers; of a network without a list of those all but its last one."""
    model = getattr(network, "model", None)
    found = None if model is None else find_hidden_layers(model)
    if found is not None:
        yield from (module for layer in found[1] for module in layer.modules() if isinstance(module, nn.Linear))
        return
    yield from [module for module in network.modules() if isinstance(module, nn.Linear)][:-1]


def _fits_groups(layer: nn.Linear) -> bool:
    return layer.in_features % GROUP == 0 and layer.out_features % _TILE == 0


def _replace_conv1d(network: nn.Module) -> None:
    """Replaces GPT-2's layers, which are linear with a transposed weight, by linear ones."""
    for module in list(network.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, Conv1D):
                linear = nn.Linear(layer.nx, layer.nf, device="meta")
                linear.weight, linear.bias = nn.Parameter(layer.weight.detach().T), layer.bias
                setattr(module, name, linear)


def _config(format: Literal["int8", "int4"], *, on_gpu: bool) -> Any:
    """torchao's settings; without its changes of torch's own, such as a lower precision of all float32 products."""
    if format == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return Int8WeightOnlyConfig(version=2, set_inductor_config=False)
    if on_gpu:
        from torchao.quantization import Int4WeightOnlyConfig

        return Int4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)


def _in_bf16(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Autocast does not see a quantised layer, and a norm before it may have computed in float32."""
    return tuple(each.to(torch.bfloat16) for each in given)
