"""The header of a GGUF file, as llama.cpp writes networks: what they are, without reading a weight. Needs no torch.

A file is ``GGUF``, a version, two counts, key-value pairs and the tensors' names and shapes, all little-endian, and then the
tensors' bytes (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import math
import re
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.errors import InvalidFile

SUFFIX = ".gguf"
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST = 2**24
"""Of entries and of bytes of a string: no file of a real network has more."""
_MOST_DIMENSIONS = 8
_SCALES = re.compile(r"rope_(freqs|factors)")
"""The names of tensors by which llama.cpp scales positions."""


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of its network."""

    architecture: str
    """As llama.cpp calls it."""
    vocabulary: int
    """Tokens of its tokenizer; 0 if it has none."""
    parameters: int
    fields: dict[str, Any]
    """All key-value pairs; of an array its length."""
    tensors: tuple[str, ...]
    """Their names."""


def find_gguf(folder: Path, files: Iterable[Path] | None = None) -> Path | None:
    """The one ``.gguf`` file of a folder without other weights; None if there is none.

    Raises:
        InvalidFile: there are several.
    """
    names = sorted(path.name for path in (folder.iterdir() if files is None else files))
    found = [name for name in names if name.lower().endswith(SUFFIX)]
    if not found or any(name.endswith(".safetensors") for name in names):
        return None
    if len(found) > 1:
        raise InvalidFile(f"{', '.join(found[:5])}: these are several networks, or one in several files: leave one whole one")
    return folder / found[0]


def read_gguf_header(path: Path, *, architectures: Collection[str]) -> GgufHeader:
    """Reads the header of a network of one of these architectures.

    Raises:
        InvalidFile: it is no whole GGUF file, or not of a network that is computed as ``transformers`` reads it.
    """
    try:
        with path.open("rb") as file:
            header, least = _read(file)
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise InvalidFile(f"{path.name!r} is no GGUF file, or it is cut off: its header is not all there") from error
    if path.stat().st_size < least:
        raise InvalidFile(f"{path.name!r} is cut off: it has {path.stat().st_size} bytes, and its last tensor begins at {least}")
    _refuse_unread(header, path.name, architectures)
    return header


def _refuse_unread(header: GgufHeader, filename: str, architectures: Collection[str]) -> None:
    fields, of = header.fields, f"{header.architecture}."
    if fields.get("split.count", 1) > 1:
        raise InvalidFile(f"{filename!r} is one of {fields['split.count']} files: join them with llama-gguf-split --merge")
    if header.architecture not in architectures:
        raise InvalidFile(
            f"{filename!r} holds the architecture {header.architecture!r:.80}; those that are read of such files are "
            f"{', '.join(architectures)}: send the folder that it was made of, with safetensors weights"
        )
    why = None
    if fields.get(f"{of}expert_count", 0):
        why = "its layers are mixtures of experts"
    elif fields.get(f"{of}rope.scaling.type", "none") != "none" or any(map(_SCALES.match, header.tensors)):
        why = "its positions are scaled, which transformers does not take from such a file"
    elif not header.vocabulary:
        why = "it has no tokenizer"
    if why is not None:
        raise InvalidFile(f"{filename!r}: {why}: send the folder that it was made of, with safetensors weights")


def _read(file: BinaryIO) -> tuple[GgufHeader, int]:
    """The header, and the least size of the file: where its last tensor begins."""
    magic, version = file.read(4), _number(file, "I")
    if magic != b"GGUF" or version not in _VERSIONS:
        raise InvalidFile(f"{Path(file.name).name!r} is no GGUF file of version 2 or 3, little-endian")
    num_tensors, num_fields = _count(file), _count(file)
    fields = {}
    for _ in range(num_fields):
        name = _string(file)
        fields[name] = _value(file, _number(file, "I"))
    parameters, last = 0, 0
    names = []
    for _ in range(num_tensors):
        names.append(_string(file))
        num_dimensions = _number(file, "I")
        if num_dimensions > _MOST_DIMENSIONS:
            raise OverflowError
        parameters += math.prod([_number(file, "Q") for _ in range(num_dimensions)])
        _number(file, "I")
        last = max(last, _number(file, "Q"))
    header = GgufHeader(
        architecture=str(fields.get("general.architecture", "")),
        vocabulary=int(fields.get("tokenizer.ggml.tokens", 0)),
        parameters=parameters,
        fields=fields,
        tensors=tuple(names),
    )
    return header, file.tell() + last


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _code(kind))
    kind, count = _number(file, "I"), _count(file)
    if kind == _STRING:
        for _ in range(count):
            _skip(file, _number(file, "Q"))
    else:
        _skip(file, count * struct.calcsize(f"<{_code(kind)}"))
    return count


def _code(kind: int) -> str:
    if kind not in _NUMBERS:
        raise OverflowError
    return _NUMBERS[kind]


def _count(file: BinaryIO) -> int:
    if (count := int(_number(file, "Q"))) > _MOST:
        raise OverflowError
    return count


def _string(file: BinaryIO) -> str:
    return file.read(_count(file)).decode()


def _skip(file: BinaryIO, length: int) -> None:
    if length > _MOST * struct.calcsize("<d"):
        raise OverflowError
    file.seek(length, 1)


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]
