"""The checkpoint: one safetensors file that holds a whole training state, written so that a crash never leaves half of one.

The state is a tree of dicts, lists, tuples, numbers, strings, booleans, None and tensors. The tree goes as JSON into the
file's metadata, each tensor in it as a reference; nothing is ever pickled. A SHA-256 over the tree and every tensor's bytes
is stored beside it.

Invariant: the file under the final name is always a complete one (temporary file, fsync, rename, fsync of the folder), and what
:func:`read_checkpoint` returns is bit for bit what :func:`write_checkpoint` was given.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worker.durable import sync

FORMAT = 1

_TREE, _DIGEST, _FORMAT = "tree", "sha256", "format"
_MARKS = {"$tensor", "$tuple", "$items", "$float"}


class DamagedCheckpoint(Exception):
    """The file differs from what was written; nothing in it may be trusted."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replaces ``path`` by a checkpoint of ``state``, synced to disk before this returns."""
    leaves = _Leaves()
    tree = json.dumps(_encode(state, leaves, place="state"), allow_nan=False, separators=(",", ":"))
    tensors = leaves.tensors
    metadata = {_FORMAT: str(FORMAT), _TREE: tree, _DIGEST: _digest(tree, tensors)}
    temporary = path.with_name(f"{path.name}.writing")
    save_file(tensors, temporary, metadata=metadata)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``, its tensors on the CPU.

    Raises:
        FileNotFoundError: there is no checkpoint.
        DamagedCheckpoint: the file is truncated, altered, or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned: the tensors outlive the file's next replacement, and must not be views of its pages.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpoint(f"{path.name} is not a whole safetensors file: {error}") from error
    if metadata.get(_FORMAT) != str(FORMAT):
        raise DamagedCheckpoint(f"{path.name} has format {metadata.get(_FORMAT)!r}, not {FORMAT}")
    tree = metadata.get(_TREE, "")
    if _digest(tree, tensors) != metadata.get(_DIGEST):
        raise DamagedCheckpoint(f"the content of {path.name} does not have the SHA-256 that it was written with")
    state: dict[str, Any] = _decode(json.loads(tree), tensors)
    return state


class _Leaves:
    """The tree's tensors by their places, each with memory of its own, as the file format requires; one that is tied once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[int, str] = {}

    def add(self, place: str, tensor: Tensor) -> str:
        """Adds a tensor; returns the place where it stands, another one's if it is the very same."""
        tensor = tensor.detach().to("cpu")
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        there = self._places.get(tensor.data_ptr())
        if there is not None and whole and _is_same(tensor, self.tensors[there]):
            return there
        if not whole or there is not None:  # slices of larger tensors, and other views, are stored as tensors of their own
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        self._places[tensor.data_ptr()] = place
        self.tensors[place] = tensor
        return place


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.numel() > 0 and (one.dtype, one.shape) == (other.dtype, other.shape)


def _encode(node: Any, leaves: _Leaves, *, place: str) -> Any:
    match node:
        case Tensor():
            return {"$tensor": leaves.add(place, node)}
        case None | bool() | int() | str():
            return node
        case float():
            return node if math.isfinite(node) else {"$float": repr(node)}
        case list():
            return [_encode(item, leaves, place=f"{place}/{index}") for index, item in enumerate(node)]
        case tuple():
            return {"$tuple": _encode(list(node), leaves, place=place)}
        case dict() if all(isinstance(key, str) for key in node) and not _MARKS & node.keys():
            return {key: _encode(value, leaves, place=f"{place}/{key}") for key, value in node.items()}
        case dict():
            return {"$items": _encode([[key, value] for key, value in node.items()], leaves, place=place)}
        case _:
            raise TypeError(f"{place} is {type(node).__name__}, which a checkpoint cannot hold")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    match node:
        case {"$tensor": place}:
            return tensors[place]
        case {"$float": text}:
            return float(text)
        case {"$tuple": items}:
            return tuple(_decode(item, tensors) for item in items)
        case {"$items": items}:
            return {_decode(key, tensors): _decode(value, tensors) for key, value in items}
        case dict():
            return {key: _decode(value, tensors) for key, value in node.items()}
        case list():
            return [_decode(item, tensors) for item in node]
        case _:
            return node


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(tree.encode())
    for piece in _pieces(tensors):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(tensors: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    for name in sorted(tensors):
        tensor = tensors[name]
        yield f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
        if tensor.numel():
            yield tensor.reshape(-1).view(torch.uint8).numpy().data
