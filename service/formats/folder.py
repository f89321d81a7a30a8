"""A zip or tar of images or audio in class folders, ``cat/1.png``, or below split folders, ``train/cat/1.png``.

Its columns are ``image`` or ``audio``, and ``label``. Invariant: the rows are in the order of the sorted paths, not of the
archive; every image has the size and mode of the first.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.audio import AudioExtent, decode_audio
from service.formats.chunk import (
    CHUNK_BYTES,
    Chunk,
    ColumnSelection,
    RawInputs,
    TargetKind,
    Waveform,
    check_num_splits,
    check_split_name,
)
from service.formats.image import ImageShape, decode_image, image_shape
from service.formats.members import open_members
from service.spec.data import Column

LABEL_COLUMN = "label"
_SPLIT_NAMES = {"train", "validation", "test", "val", "valid", "dev"}
_LAYOUT = "an archive holds class folders, cat/1.png, or below split folders, train/cat/1.png"


@dataclass(frozen=True)
class File:
    """One sample."""

    path: PurePosixPath
    split: str
    label: str


class FolderTable:
    """An open archive; see :class:`service.formats.chunk.DataTable`."""

    def __init__(self, path: Path, selection: ColumnSelection) -> None:
        self._kind, self._max_unpacked_bytes = selection.input_kind, selection.max_unpacked_bytes
        self.targets: dict[str, TargetKind] = {LABEL_COLUMN: "label"}
        self.class_names: dict[str, list[str]] = {}
        if self._kind == "text":
            raise InvalidFile(
                f"an archive of class folders is for images or sound, not for {selection.task}; send a file of rows"
            )
        if selection.columns != (self._kind, LABEL_COLUMN):
            raise InvalidFile(
                f"an archive of class folders has the columns {self._kind!r} and {LABEL_COLUMN!r}; leave others out"
            )
        with ExitStack() as stack:
            self._members = stack.enter_context(open_members(path, max_unpacked_bytes=self._max_unpacked_bytes))
            self._files = read_layout(self._members.paths)
            self.splits = dict(Counter(file.split for file in self._files))
            self._extent = AudioExtent()
            if self._kind == "image":
                self._shape = self._first_shape()
            self._close = stack.pop_all()

    def __enter__(self) -> "FolderTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def columns(self) -> dict[str, Column]:
        label = Column(kind="label", dtype="string")
        if self._kind == "audio":
            return {self._kind: self._extent.column(), LABEL_COLUMN: label}
        sides = [self._shape.height, self._shape.width, self._shape.channels]
        return {self._kind: Column(kind="image", dtype="uint8", shape=sides), LABEL_COLUMN: label}

    def chunks(self) -> Iterator[Chunk]:
        first, inputs, num_bytes = 0, list[NDArray[np.generic] | Waveform](), 0
        for row, file in enumerate(self._files):
            read = self._read_image(file.path) if self._kind == "image" else self._read_audio(file.path)
            inputs.append(read)
            num_bytes += read.nbytes if isinstance(read, np.ndarray) else read.samples.nbytes
            is_last = row + 1 == len(self._files) or self._files[row + 1].split != file.split
            if is_last or num_bytes >= CHUNK_BYTES:
                yield self._chunk(first, inputs)
                first, inputs, num_bytes = row + 1, [], 0

    def _chunk(self, first: int, inputs: list[NDArray[np.generic] | Waveform]) -> Chunk:
        files = self._files[first : first + len(inputs)]
        arrays: RawInputs
        if self._kind == "image":
            arrays = self._shape.to_channels_first(np.stack(cast(list[NDArray[np.generic]], inputs)))
        else:
            arrays = cast(list[Waveform], inputs)
        return Chunk(
            split=files[0].split,
            rows=np.arange(first, first + len(files), dtype=np.int64),
            inputs=arrays,
            targets={LABEL_COLUMN: [file.label for file in files]},
        )

    def _first_shape(self) -> ImageShape:
        first = self._files[0].path
        image = decode_image(self._members.read(first), place=repr(str(first)))
        image_shape(image.shape[:2], place=repr(str(first)))
        height, width, *channels = self._stored_shape = image.shape
        if image.nbytes * len(self._files) > self._max_unpacked_bytes:
            raise InvalidFile(
                f"unpacked, the images are {image.nbytes * len(self._files):,} bytes; at most {self._max_unpacked_bytes:,} may be"
            )
        return ImageShape(height, width, channels[0] if channels else 1, "HWC" if channels else "HW")

    def _read_image(self, path: PurePosixPath) -> NDArray[np.generic]:
        image = decode_image(self._members.read(path), place=repr(str(path)))
        if image.shape != self._stored_shape:
            wrong, usual = ("x".join(map(str, shape)) for shape in (image.shape, self._stored_shape))
            raise InvalidFile(
                f"{str(path)!r} is {wrong}, and {str(self._files[0].path)!r} is {usual}; make all images one size and one mode"
            )
        return image

    def _read_audio(self, path: PurePosixPath) -> Waveform:
        waveform = decode_audio(self._members.read(path), place=repr(str(path)))
        self._extent.add(waveform, max_unpacked_bytes=self._max_unpacked_bytes)
        return waveform


def read_layout(paths: Sequence[PurePosixPath]) -> list[File]:
    """Derives split and label of each file from its path. ``paths`` are sorted; folders that enclose everything are ignored.

    Raises:
        InvalidFile: the files are not all in class folders.
    """
    if not paths:
        raise InvalidFile(f"the archive holds no file; {_LAYOUT}")
    around = _folders_around(paths)
    parts_of = {path: path.parts[around:] for path in paths}
    depth, _ = Counter(len(parts) for parts in parts_of.values()).most_common(1)[0]
    if depth not in (2, 3):
        at = next(path for path, parts in parts_of.items() if len(parts) == depth)
        raise InvalidFile(f"{str(at)[:200]!r} is in no class folder; {_LAYOUT}")
    for path, parts in parts_of.items():
        if len(parts) != depth:
            usual = "beside the class folders" if len(parts) < depth else "in a folder inside a class folder"
            raise InvalidFile(f"{str(path)[:200]!r} lies {usual}; move it or take it out: {_LAYOUT}")
    files = [File(path, "train" if depth == 2 else parts[0], parts[-2]) for path, parts in parts_of.items()]
    splits = {check_split_name(file.split): None for file in files}
    check_num_splits(len(splits))
    if "train" not in splits:
        shown = ", ".join(map(repr, list(splits)[:10]))
        raise InvalidFile(f"the files are two folders deep below {shown}, which would be splits, and none is 'train'; {_LAYOUT}")
    classes = {file.label for file in files if file.split == "train"}
    if len(classes) < 2:
        raise InvalidFile(f"there is one class folder, {classes.pop()[:200]!r}; a classification needs at least two")
    return files


def _folders_around(paths: Sequence[PurePosixPath]) -> int:
    """The number of enclosing folders, which contain all files and are neither a class nor a split."""
    around = 0
    first, last = paths[0].parts, paths[-1].parts  # of sorted paths, what these share all share
    least = min(len(path.parts) for path in paths)
    while around < least - 2 and first[around] == last[around] and first[around] not in _SPLIT_NAMES:
        around += 1
    return around
