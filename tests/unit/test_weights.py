"""Reading the header of a safetensors file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.errors import InvalidFile
from service.weights import Tensor, read_header


def _write(path: Path, header: Any, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors: dict[str, Any] = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64), "c": np.zeros((0, 5), np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    assert read_header(path, filename="x") == {"a": Tensor("F32", (2, 3)), "b": Tensor("I64", ()), "c": Tensor("F16", (0, 5))}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"{", b""),
        (b"[" * 100_000, b""),
        ([], b""),
        ({}, b""),
        ({"__metadata__": {"format": "pt"}}, b""),
        ({"a": 1}, b""),
        ({"a": {"dtype": "X1", "shape": [1], "data_offsets": [0, 1]}}, b"x"),
        ({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}, b"x"),
        ({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"x"),
        ({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 1]}}, b"x"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"xx"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b""),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"xx"),
        ({name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]} for name in "ab"}, b"x"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, header: Any, body: bytes) -> None:
    with pytest.raises(InvalidFile, match="'w'"):
        read_header(_write(tmp_path / "w", header, body), filename="w")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, (50).to_bytes(8, "little") + b"{}"])
def test_a_file_without_a_whole_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match="no safetensors file"):
        read_header(path, filename="w")
