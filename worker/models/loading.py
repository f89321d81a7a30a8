"""The number format in which a network's weights are held, and where: the only way that either enters a loader.

A network computes in the format of its weights, and takes inputs in float32 whatever that is. Invariant: weights go from their
file into their format, never through a float32 copy, and those of a file that has the format already stay the file's own pages,
unless others of that network are integers.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from service.errors import InvalidFile
from service.weights import Tensor as StoredTensor
from service.weights import read_header

FloatFormat = Literal["fp32", "bf16", "fp16"]
NumberFormat = Literal["fp32", "bf16", "fp16", "int8", "int4"]

DTYPES: Mapping[FloatFormat, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DIGITS: Mapping[NumberFormat, int] = {"fp32": 24, "fp16": 11, "bf16": 8, "int8": 8, "int4": 4}
"""Binary digits of a weight."""
_EXPONENTS: Mapping[FloatFormat, int] = {"fp32": 8, "bf16": 8, "fp16": 5}
"""Bits of a weight's exponent."""
_BITS: Mapping[NumberFormat, int] = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 5}
"""Bits of a weight; in int4 every 32 share a scale and an offset."""
_LAYER = re.compile(r"\.\d+\.")
_FREQUENCIES = "inv_freq"
"""The end of the names of buffers by which a network turns what stands at a position: times a position of some hundreds their
rounding is a turn of its own. The library has them in float32 whatever the format of a network is."""


@dataclass(frozen=True)
class Loading:
    """How a network's weights enter memory."""

    format: NumberFormat = "fp32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type of what is not quantised."""
        return torch.bfloat16 if self.format in ("int8", "int4") else DTYPES[cast(FloatFormat, self.format)]

    @property
    def quantised(self) -> Literal["int8", "int4"] | None:
        """The format of the linear layers' weights, where those are integers."""
        return self.format if self.format in ("int8", "int4") else None

    def rounds(self, stored: FloatFormat) -> bool:
        """Whether weights that are stored in that format are rounded on their way."""
        if self.quantised is not None:
            return True
        ours = cast(FloatFormat, self.format)
        return _DIGITS[ours] < _DIGITS[stored] or _EXPONENTS[ours] < _EXPONENTS[stored]


FLOAT32 = Loading()
"""On the CPU."""


def choose_loading(
    name: Literal["auto"] | NumberFormat,
    stored: FloatFormat,
    device: torch.device,
    *,
    on_gpu: bool | None = None,
    in_units: bool = False,
) -> Loading:
    """The loading that a spec's ``name`` stands for, of files that hold ``stored``.

    ``auto`` is what the files hold, on a CPU to the last bit, and bf16 on a GPU that computes in it; float32 for numbers that are
    ``in_units`` of data, of which bf16 has two digits. ``on_gpu`` says what the job itself runs on, where a check tries it
    elsewhere.
    """
    if name != "auto" or in_units:
        return Loading("fp32" if name == "auto" else name, device)
    if on_gpu if on_gpu is not None else device.type == "cuda":
        has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return Loading("bf16" if has_bf16 else stored, device)
    return Loading(stored, device)


@dataclass(frozen=True)
class StoredWeights:
    """What the headers of a folder's files say of its weights."""

    tensors: Mapping[str, StoredTensor]
    """By name; none if a header cannot be read."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Reads the headers alone."""
        try:
            headers = [read_header(path, filename=path.name) for path in sorted(folder.glob("*.safetensors"))]
        except (OSError, InvalidFile):
            return cls({})
        return cls({name: tensor for header in headers for name, tensor in header.items()})

    @property
    def format(self) -> FloatFormat:
        """That in which most of them compute; fp32 if there are none of a known format."""
        counts: Counter[FloatFormat] = Counter()
        for tensor in self.tensors.values():
            if tensor.format is not None and tensor.format.computed is not None:
                counts[tensor.format.computed] += prod(tensor.shape)
        return counts.most_common(1)[0][0] if counts else "fp32"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def bytes(self, loading: Loading) -> int:
        """Bytes that the weights take when they are loaded so: of integers the matrices of numbered layers, and the rest as it
        is beside them."""
        num_bits = 0
        for name, tensor in self.tensors.items():
            is_quantised = loading.quantised is not None and len(tensor.shape) == 2 and _LAYER.search(name) is not None
            num_bits += prod(tensor.shape) * (_BITS[loading.format] if is_quantised else 8 * loading.dtype.itemsize)
        return num_bits // 8


def hold(network: nn.Module, loading: Loading) -> nn.Module:
    """Puts a network into the loading's format, on its device; returns it. One in float32 is as it was.

    Raises:
        UnquantisableNetwork: none of its layers can be quantised.
    """
    if loading.quantised is not None:
        from worker.models.quantised import quantise

        quantise(network, loading)
    network.to(loading.device)
    return network if loading.dtype is torch.float32 else compute_in(network, loading.dtype)


def compute_in(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Puts what of a network is not quantised into a type, and has it take inputs of any other; returns it."""
    if not any(is_traceable_wrapper_subclass(each) for each in network.parameters()):
        exact = [(module, name, buffer) for module, name, buffer in _buffers(network) if is_exact(name)]
        network.to(dtype)
        for module, name, buffer in exact:
            setattr(module, name, buffer)
    if _cast_inputs not in network._forward_pre_hooks.values():
        network.register_forward_pre_hook(_cast_inputs)
    return network


def is_exact(name: str) -> bool:
    """Whether the buffer of that name stays in float32 in every format."""
    return name.endswith(_FREQUENCIES)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The type that a network computes in: that of its first weight which is no integer."""
    return next((each.dtype for each in network.parameters() if each.is_floating_point()), torch.float32)


def plain_tensors(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensors that hold a weight, by name: those of a quantised one are several, and ``nbytes`` of it is of none of them."""
    if not is_traceable_wrapper_subclass(tensor):
        yield "", tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        for rest, inner in plain_tensors(getattr(tensor, name)):
            yield f".{name}{rest}", inner


def held_bytes(tensor: Tensor) -> int:
    """Bytes that a weight takes."""
    return sum(inner.nbytes for _, inner in plain_tensors(tensor))


def _buffers(network: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    return ((module, name, each) for module in network.modules() for name, each in module.named_buffers(recurse=False))


def _cast_inputs(network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = dtype_of(network)

    def cast_one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(
        {name: cast_one(each) for name, each in value.items()} if isinstance(value, Mapping) else cast_one(value)
        for value in given
    )
