"""What a network reads of a batch: one tensor, or several by name, and what is done with either. B samples.

Invariant: the first dimension of every tensor counts the samples, and all are on one device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from worker.data.disk.mapped_rows import MappedRows, NamedRows
from worker.data.disk.stored import StoredInputs

Inputs: TypeAlias = Tensor | Mapping[str, Tensor]
_Inputs = TypeVar("_Inputs", bound=Inputs)
Mapped: TypeAlias = MappedRows | NamedRows
"""Of a whole split, on disk as a network reads them."""
SplitInputs: TypeAlias = Inputs | Mapped | StoredInputs
"""What a network reads of a whole split: in memory, or on disk."""
_SplitInputs = TypeVar("_SplitInputs", bound=SplitInputs)


def select_rows(inputs: _Inputs, indices: Tensor) -> _Inputs:
    """Selects the samples at ``indices``, which are on the inputs' device."""
    return _each(inputs, lambda tensor: tensor.index_select(0, indices))


def read_rows(inputs: SplitInputs, indices: Tensor) -> Inputs:
    """Selects the samples at ``indices`` of a split, in memory or on disk."""
    return inputs.select(indices) if isinstance(inputs, Mapped) else select_rows(in_memory(inputs), indices)


def slice_rows(inputs: _SplitInputs, start: int, stop: int) -> _SplitInputs:
    """Views the samples from ``start`` to before ``stop``."""
    if isinstance(inputs, Mapped):
        return cast(_SplitInputs, inputs.narrow(start, stop))
    if isinstance(inputs, StoredInputs):
        return cast(_SplitInputs, inputs[start:stop])
    return _each(inputs, lambda tensor: tensor[start:stop])


def to_device(inputs: _Inputs, device: torch.device | str, *, non_blocking: bool = False) -> _Inputs:
    """Copies inputs to a device; those that are there already are returned as they are."""
    return _each(inputs, lambda tensor: tensor.to(device, non_blocking=non_blocking))


def zeros_like(inputs: _Inputs) -> _Inputs:
    """Inputs of the same shapes and types that are all 0; inside a mode of fake tensors, without values."""
    return _each(inputs, lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype))


def concatenate(pieces: Sequence[_Inputs]) -> _Inputs:
    """Puts the samples of one piece or more after one another; all pieces have the same names."""
    first = pieces[0]
    if isinstance(first, Tensor):
        return cast(_Inputs, torch.cat(cast(list[Tensor], pieces)))
    named = cast(Sequence[Mapping[str, Tensor]], pieces)
    return cast(_Inputs, {name: torch.cat([piece[name] for piece in named]) for name in named[0]})


def in_memory(inputs: SplitInputs) -> Inputs:
    """The inputs, which are in memory."""
    if isinstance(inputs, Mapped | StoredInputs):
        raise TypeError("samples on disk are read batch by batch")
    return inputs


def row_width(inputs: SplitInputs) -> int | None:
    """Tokens of the longest row, among the inputs of a network of texts; None where there are none."""
    if isinstance(inputs, Mapped):
        return (inputs.of["ids"] if isinstance(inputs, NamedRows) else inputs).width
    ids = None if isinstance(inputs, StoredInputs) else token_ids_of(inputs)
    return None if ids is None else ids.shape[1]


def num_rows(inputs: SplitInputs) -> int:
    """B."""
    if isinstance(inputs, Mapped | StoredInputs):
        return len(inputs)
    return len(_tensors(inputs)[0])


def num_values(inputs: Inputs) -> int:
    """Number of elements of all tensors."""
    return sum(tensor.numel() for tensor in _tensors(inputs))


def num_bytes(inputs: SplitInputs) -> int:
    """Size of all tensors in memory."""
    if isinstance(inputs, Mapped | StoredInputs):
        return 0
    return sum(tensor.nbytes for tensor in _tensors(inputs))


def home_of(inputs: SplitInputs) -> torch.device:
    """The device that the inputs are on; the CPU's of those on disk."""
    if isinstance(inputs, Mapped | StoredInputs):
        return torch.device("cpu")
    return _tensors(inputs)[0].device


def only_tensor(inputs: SplitInputs) -> Tensor:
    """The inputs of a network that reads one tensor. Raises TypeError if they are several by name, or on disk."""
    inputs = in_memory(inputs)
    if not isinstance(inputs, Tensor):
        raise TypeError(f"one tensor is read here, not several by name: {', '.join(inputs)}")
    return inputs


def token_ids_of(inputs: Inputs) -> Tensor | None:
    """The token ids (B, L) among the inputs of a network of texts; None where there are none."""
    ids = inputs if isinstance(inputs, Tensor) else inputs.get("ids")
    return ids if ids is not None and ids.dim() == 2 and not ids.is_floating_point() else None


def _each(inputs: _Inputs, change: Callable[[Tensor], Tensor]) -> _Inputs:
    if isinstance(inputs, Tensor):
        return cast(_Inputs, change(inputs))
    return cast(_Inputs, {name: change(tensor) for name, tensor in inputs.items()})


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
