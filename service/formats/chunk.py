"""The interface of readers: the columns that are selected, and chunks of rows of one split, small enough for memory."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.media.encoded import EncodedAudio, EncodedImage
from service.formats.pair import TextPair
from service.spec.data import Column
from service.spec.tasks import TASKS, USUAL_PAIRS, InputColumnKind, InputKind, TargetKind, TaskName
from service.spec.warning_message import WarningMessage

CHUNK_BYTES = 8 * 2**20
"""The approximate size of a chunk in memory."""
SPLIT_COLUMN = "split"
"""In a file of rows, the column of strings with the split of each row."""
MAX_SPLITS = 16
MAX_COLUMNS = 2000
"""Every description of the dataset lists all of them."""
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_Values = TypeVar("_Values")


@dataclass(frozen=True)
class Waveform:
    """One audio clip. T samples."""

    samples: NDArray[np.float32]
    """(T,), one channel, in [-1, 1]."""
    rate: int
    """Samples per second."""


RawInputs = (
    NDArray[np.generic] | Sequence[EncodedImage] | Sequence[str] | Sequence[TextPair] | Sequence[Waveform] | Sequence[list[str]]
)
"""Images (N, C, H, W), uint8 or float32, or N files of images of several sizes; N texts, of which each may be a chat, or N pairs
of texts; N waveforms; or the words of N rows."""
ChunkInputs = (
    NDArray[np.generic]
    | Sequence[str]
    | Sequence[TextPair]
    | Sequence[EncodedImage]
    | Sequence[EncodedAudio]
    | Sequence[list[str]]
)
"""The same, with images and sound that are files still encoded."""
ReadInputs = ChunkInputs | Sequence[EncodedImage | None] | Sequence[EncodedAudio | None]
"""The same, with None for files that cannot be read and are left out."""
TargetValues = NDArray[np.int64] | NDArray[np.float64] | Sequence[str | None] | Sequence[Any]
"""(N,). Class indices, -1 if missing, ``MINUS_ONE`` where the file says -1; numbers, NaN if missing; class names and answers,
None if missing; or tags and spans as they stand in the file, None if missing."""
MINUS_ONE = -2


@dataclass(frozen=True)
class Chunk:
    """Rows of one split. N samples, C channels, H height, W width."""

    split: str
    rows: NDArray[np.int64]
    """The row numbers in the file, from 0."""
    inputs: ChunkInputs
    targets: dict[str, TargetValues]
    """By column, each (N,)."""
    lines: NDArray[np.int64] | None = None
    """In a text file, the lines on which the rows begin, from 1."""

    def take(self, rows: NDArray[np.int64]) -> "Chunk":
        """Selects rows by their index in the chunk."""
        return replace(
            self,
            rows=self.rows[rows],
            inputs=take(self.inputs, rows),
            targets={column: take(values, rows) for column, values in self.targets.items()},
            lines=None if self.lines is None else self.lines[rows],
        )

    def place(self, column: str, index: int) -> str:
        """The place of a value, for messages."""
        line = "" if self.lines is None else f" (line {self.lines[index]})"
        return f"column {column!r} of split {self.split!r}, row {self.rows[index]}{line}"


@dataclass(frozen=True)
class ColumnSelection:
    """The columns to read from a file, and the task that determines their kinds."""

    task: TaskName
    inputs: tuple[str, ...]
    """The input column; two where a row is a pair of texts."""
    target_columns: tuple[str, ...]
    max_unpacked_bytes: int
    """The most bytes that the file may unpack to."""
    weight_column: str | None = None
    """The last of ``target_columns`` if that holds the weights of the rows."""
    skip_broken: bool = False
    """Whether rows whose file of an image or of sound cannot be read are left out and told, rather than refused."""
    without_target: Literal["refuse", "doubt", "miss"] = "refuse"
    """What becomes of a file that lacks a target: it is refused; it is refused if a column has almost that name, and else read
    with the target missing in every row; or it is read so at once."""
    leaves_inputs: bool = False
    """Whether the inputs, and answers, of shards stay where they are: targets alone are read, and chunks have no inputs but
    words, by which tags are checked."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.inputs, *self.target_columns)

    @property
    def input_column(self) -> str:
        """The input column, or the first of a pair."""
        return self.inputs[0]

    @property
    def input_kind(self) -> InputKind:
        return TASKS[self.task].input_kind

    @property
    def reads_words(self) -> bool:
        """Whether the inputs are words, given as such or made of texts, and the targets their tags or spans."""
        return TASKS[self.task].reads_words

    def word_targets(self, column: InputColumnKind) -> TargetKind:
        """The kind of the targets beside an input column of that kind, where the inputs are words."""
        return TASKS[self.task].word_targets(column)

    @property
    def kind_of_lacking(self) -> TargetKind:
        """The kind of a target that the file lacks, and of which nothing is known."""
        return TASKS[self.task].target_kinds[0] if self.reads_words else "label"

    @property
    def has_answers(self) -> bool:
        """Whether the targets are texts, the answers to prompts."""
        return "text" in TASKS[self.task].target_kinds

    @property
    def reads_chats(self) -> bool:
        """Whether the inputs may be chats."""
        return TASKS[self.task].reads_chats

    def without(self, columns: Collection[str]) -> "ColumnSelection":
        """The same selection without some of its targets."""
        return replace(self, target_columns=tuple(name for name in self.target_columns if name not in columns))


class DataTable(Protocol):
    """An open dataset file. Its layout is checked when it is opened, its values as they are read."""

    splits: dict[str, int]
    """Rows by split."""
    targets: dict[str, TargetKind]
    """The kind of each selected target that the file has, in the order of the selection."""
    lacking: tuple[str, ...]
    """The selected targets that the file lacks."""
    warnings: list[WarningMessage]
    """What of the file is left out or read otherwise than one might think, complete once all rows were read."""
    class_names: dict[str, list[str]]
    """By target, the class names that the file gives for class indices, if it does."""

    def chunks(self) -> Iterator[Chunk]:
        """Yields all rows, split by split or in the order of the file."""

    def columns(self) -> dict[str, Column]:
        """The descriptions of the columns, still without class counts."""


class Reader(Protocol):
    """Opens a file."""

    def __call__(self, path: Path, selection: ColumnSelection) -> AbstractContextManager[DataTable]: ...


def divide(
    splits: Sequence[str] | None,
    *,
    rows: NDArray[np.int64],
    inputs: ReadInputs,
    targets: dict[str, TargetValues],
    lines: NDArray[np.int64] | None = None,
) -> Iterator[Chunk]:
    """Yields one chunk for each split among the rows; without ``splits`` all are in ``train``."""
    whole = Chunk(split="train", rows=rows, inputs=cast(ChunkInputs, inputs), targets=targets, lines=lines)
    names = ["train"] if splits is None else list(dict.fromkeys(splits))
    if splits is None or len(names) == 1:
        yield replace(whole, split=names[0])
        return
    of_row = np.array(splits)
    for name in names:
        yield replace(whole.take(np.flatnonzero(of_row == name)), split=name)


def take(values: _Values, rows: NDArray[np.int64]) -> _Values:
    """Indexes an array or a list with row numbers."""
    if isinstance(values, np.ndarray):
        return cast(_Values, values[rows])
    return cast(_Values, [cast(Sequence[object], values)[row] for row in rows])


_HOW_TO_NAME = "; name the one to read as input_column (--input-column)"


def check_columns(selection: ColumnSelection, names: Sequence[str], *, hint: str = "") -> tuple[str, ...]:
    """Checks that a file of rows has the selected columns, each once, and returns the targets that it may and does lack.

    Raises:
        InvalidFile: a column is missing, doubled or badly named; ``hint`` is added to the message.
    """
    if len(names) > MAX_COLUMNS:
        raise InvalidFile(
            f"the file has {len(names):,} columns; at most {MAX_COLUMNS:,} may be: keep those that are needed{hint}"
        )
    there = f"its columns are {', '.join(repr(name)[:200] for name in names[:50]) or 'none'}{hint}"
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidFile(f"two columns are called {twice!r:.100}; rename one; {there}")
    if absent := [name for name in selection.inputs if name not in names]:
        raise InvalidFile(f"the file has no input column {absent[0]!r}; {there}{_how_to_name(names, selection)}")
    lacking = tuple(name for name in selection.target_columns if name not in names)
    refuse_lacking(selection, lacking, names, there=there)
    for name in names:
        # The description is stored, and PostgreSQL cannot store these characters.
        if "\0" in name or not is_unicode(name):
            raise InvalidFile(f"the name of column {name[:80]!r} holds a NUL or half a surrogate pair; rename it")
    return lacking


def refuse_lacking(selection: ColumnSelection, lacking: Sequence[str], names: Iterable[str], *, there: str) -> None:
    """Checks that the file may lack these targets; ``names`` are of its columns, ``there`` says them.

    Raises:
        InvalidFile: it may not, or a column seems to be such a target under almost its name.
    """
    if not lacking:
        return
    if selection.weight_column in lacking:
        raise InvalidFile(f"the file has no weight column {selection.weight_column!r}; {there}")
    if selection.has_answers or selection.without_target == "refuse":
        raise InvalidFile(f"the file has no target column {lacking[0]!r}; {there}")
    if selection.without_target == "doubt":
        for target in lacking:
            if close := next((name for name in names if _is_almost(name, target)), None):
                what = f"the file has no column {target!r} and one called {close!r:.100}"
                named = f"rename it to {target!r} or upload the file with target_column={close.strip():.100}"
                raise InvalidFile(f"{what}: if that is the target, {named}; if the file has no labels, take it out")


def _how_to_name(names: Sequence[str], selection: ColumnSelection) -> str:
    """The columns of language models' data under the names that are usual elsewhere; the columns of texts and their spans."""
    if TASKS[selection.task].takes_pairs:
        usual = next((pair for pair in USUAL_PAIRS if set(pair) <= set(names)), None)
        return f"; upload it with input_column={','.join(usual)}" if usual else _HOW_TO_NAME
    if "text" in names and selection.reads_words and "text" in TASKS[selection.task].columns:
        return "; upload it with input_column=text and, of its spans, target_column=spans"
    if "prompt" in names and "completion" in names:
        return "; upload it with input_column=prompt and target_column=completion"
    if "messages" in names and selection.reads_chats:
        return "; upload it with input_column=messages"
    return _HOW_TO_NAME


def _is_almost(name: str, target: str) -> bool:
    almost, wanted = name.strip().casefold().removesuffix("s"), target.removesuffix("s")
    return almost == wanted or almost.endswith(f"_{wanted}")


def check_split_name(name: str) -> str:
    """Returns the name of a split, unchanged.

    Raises:
        InvalidFile: it is not a valid name.
    """
    if not _SPLIT_NAME.fullmatch(name):
        raise InvalidFile(f"{name!r:.80} is no name of a split: letters, digits, '_', '.' and '-', 64 at most")
    return name


def check_num_splits(num_splits: int) -> None:
    """Raises InvalidFile if there are more than ``MAX_SPLITS`` splits."""
    if num_splits > MAX_SPLITS:
        raise InvalidFile(
            f"column {SPLIT_COLUMN!r} names more than {MAX_SPLITS} splits: it says for each row train, validation or test"
        )


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded as UTF-8: escapes in JSON may produce lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
