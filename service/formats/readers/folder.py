"""A zip or tar of images or audio, whose folders say split and class; see :mod:`service.formats.readers.layout`.

Its columns are ``image`` or ``audio``, and ``label`` unless no file is in a class folder. Invariant: the rows are in the order of
the sorted paths, not of the archive.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np

from service.errors import InvalidFile
from service.formats.chunk import (
    CHUNK_BYTES,
    Chunk,
    ChunkInputs,
    ColumnSelection,
    refuse_lacking,
)
from service.formats.dataset_warnings import listed
from service.formats.media.check import MediaFiles
from service.formats.media.encoded import EncodedAudio, EncodedImage
from service.formats.readers.layout import Layout, read_layout
from service.formats.readers.members import Members, open_members
from service.spec.data import Column
from service.spec.tasks import TargetKind
from service.spec.warning_message import WarningMessage

LABEL_COLUMN = "label"


class FolderTable:
    """An open archive; see :class:`service.formats.chunk.DataTable`."""

    def __init__(self, path: Path, selection: ColumnSelection) -> None:
        self._kind, self._max_unpacked_bytes = selection.input_kind, selection.max_unpacked_bytes
        self.targets: dict[str, TargetKind] = {}
        self.class_names: dict[str, list[str]] = {}
        self.warnings: list[WarningMessage] = []
        if self._kind == "text":
            raise InvalidFile(
                f"an archive of class folders is for images or sound, not for {selection.task}; send a file of rows"
            )
        has = f"an archive of class folders has the columns {self._kind!r} and {LABEL_COLUMN!r}"
        if selection.input_column != self._kind:
            raise InvalidFile(f"{has}; leave others out")
        with ExitStack() as stack:
            self._members = stack.enter_context(open_members(path, max_unpacked_bytes=self._max_unpacked_bytes))
            layout = read_layout(self._members.paths)
            if skipped := self._members.skipped.count:
                names = ", ".join(repr(name)[:100] for name in self._members.skipped.first)
                message = f"{skipped:,} hidden files of the archive are left out: {names}{', …' if skipped > 10 else ''}"
                self.warnings.append(WarningMessage(code="files_skipped", message=message))
            self.warnings += _folder_warnings(self._members)
            self._files = layout.files
            is_labelled = any(file.label is not None for file in self._files)
            self.lacking = tuple(name for name in selection.target_columns if name != LABEL_COLUMN or not is_labelled)
            refuse_lacking(selection, self.lacking, (), there=has if is_labelled else _without_classes(layout))
            if layout.lone_folder is not None:
                self.warnings.append(WarningMessage(code="lone_folder", message=_without_classes(layout)))
            self.targets = dict.fromkeys(selection.without(self.lacking).target_columns, "label")
            self.splits = dict(Counter(file.split for file in self._files))
            self._media = MediaFiles(max_unpacked_bytes=self._max_unpacked_bytes, skip_broken=selection.skip_broken)
            self._close = stack.pop_all()

    def __enter__(self) -> "FolderTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def columns(self) -> dict[str, Column]:
        targets = {name: Column(kind="label", dtype="string") for name in self.targets}
        return {self._kind: self._media.column(), **targets}

    def chunks(self) -> Iterator[Chunk]:
        first, inputs, num_bytes = 0, list[EncodedImage | EncodedAudio | None](), 0
        for row, file in enumerate(self._files):
            read = self._read(file.path)
            inputs.append(read)
            num_bytes += 0 if read is None else read.decoded_bytes
            is_last = row + 1 == len(self._files) or self._files[row + 1].split != file.split
            if is_last or num_bytes >= CHUNK_BYTES:
                yield self._chunk(first, inputs)
                first, inputs, num_bytes = row + 1, [], 0
        self.warnings += self._media.warnings()

    def _chunk(self, first: int, inputs: list[EncodedImage | EncodedAudio | None]) -> Chunk:
        files = self._files[first : first + len(inputs)]
        return Chunk(
            split=files[0].split,
            rows=np.arange(first, first + len(files), dtype=np.int64),
            inputs=cast(ChunkInputs, inputs),
            targets={name: [file.label for file in files] for name in self.targets},
        )

    def _read(self, path: PurePosixPath) -> EncodedImage | EncodedAudio | None:
        data, place = self._members.read(path), repr(str(path))
        return self._media.image(data, place=place) if self._kind == "image" else self._media.clip(data, place=place)


def _folder_warnings(members: Members) -> Iterator[WarningMessage]:
    if empty := members.empty_folders:
        message = (
            f"{len(empty):,} folders of the archive hold no file, and are no classes: {listed([str(each) for each in empty])}"
        )
        yield WarningMessage(code="folder_without_files", message=message)
    first = next((str(path) for path in members.paths if not str(path).isascii()), None)
    if first is not None and not members.are_names_certain:
        message = (
            f"the zip does not say how its names are encoded, and they are read as code page 437, {first[:200]!r}; if that is "
            "not what it is called, pack it with UTF-8 names"
        )
        yield WarningMessage(code="names_uncertain", message=message)


def _without_classes(layout: Layout) -> str:
    first = layout.files[0].path
    if layout.lone_folder is None:
        return f"{str(first)[:200]!r} and the other files lie in no class folder: put them in cat/, dog/ to label them"
    alone = f"all {len(layout.files)} files are in one class folder, {layout.lone_folder[:200]!r}, which tells nothing apart"
    return f"{alone}: they are read without labels; a classification has at least two class folders"
