"""The header of a safetensors file: names, types and shapes of its tensors, without loading one. Needs no torch.

A file is 8 bytes with the header's length, the header as JSON, and the tensors' bytes without a gap
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from service.errors import InvalidFile

_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip


class StoredFormat(NamedTuple):
    """A number format of weights in a file."""

    name: str
    computed: Literal["fp32", "bf16", "fp16"] | None
    """The format in which such weights compute; None where they need scales from elsewhere."""


STORED_FORMATS: Mapping[str, StoredFormat] = {
    "F64": StoredFormat("fp64", computed="fp32"),
    "F32": StoredFormat("fp32", computed="fp32"),
    "BF16": StoredFormat("bf16", computed="bf16"),
    "F16": StoredFormat("fp16", computed="fp16"),
    "F8_E5M2": StoredFormat("fp8", computed=None),
    "F8_E4M3": StoredFormat("fp8", computed=None),
}
"""By the types of tensors; those of other types are counters and positions."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def format(self) -> StoredFormat | None:
        """The number format of a tensor of weights; None for any other tensor."""
        return STORED_FORMATS.get(self.dtype)


def read_header(path: Path, *, filename: str) -> dict[str, Tensor]:
    """Reads the tensors of a file, by name.

    Raises:
        InvalidFile: it is no whole safetensors file.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > min(_MAX_HEADER_BYTES, total - 8):
            raise InvalidFile(f"{filename!r} is no safetensors file, or it is cut off: its header is not all there")
        header = _decode(file.read(length), filename)
    header.pop("__metadata__", None)
    tensors = {}
    extents = []
    for name, entry in header.items():
        tensors[name], extent = _tensor(entry, name=name, filename=filename)
        extents.append(extent)
    position = 0
    for begin, end in sorted(extents):
        if begin != position:
            raise InvalidFile(f"{filename!r} is damaged: its tensors overlap or leave gaps")
        position = end
    if 8 + length + position != total:
        raise InvalidFile(
            f"{filename!r} is cut off or has something behind its tensors: {total} bytes, not {8 + length + position}"
        )
    if not tensors:
        raise InvalidFile(f"{filename!r} holds no tensor")
    return tensors


def _decode(data: bytes, filename: str) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{filename!r} is no safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise InvalidFile(f"{filename!r} is no safetensors file: its header is no JSON object")
    return header


def _tensor(entry: Any, *, name: str, filename: str) -> tuple[Tensor, tuple[int, int]]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if dtype in _BITS and all(
            type(side) is int and 0 <= side < 2**40 for side in shape
        ):
            if 0 <= begin <= end and (end - begin) * 8 == math.prod(shape) * _BITS[dtype]:
                return Tensor(dtype=dtype, shape=tuple(shape)), (begin, end)
    raise InvalidFile(f"{filename!r} is damaged: tensor {name!r:.80} does not agree with its type, shape and place")
