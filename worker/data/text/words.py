"""Words of texts with a class each, as networks read them: ids of all their pieces, and where each word begins.

A word's label and its outputs stand at its first piece. Invariant: no word is lost. A row that does not fit into the network is
refused, as the words that are cut off would be neither learnt nor scored. N rows, B batch, L pieces, K words of the longest row,
M words of all rows, W outputs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from service.formats import DataArrays, SplitArrays
from service.spec.data import DatasetSpec
from service.spec.inputs import TokenizerSpec
from service.spec.shapes import InputShape, TokenShape
from worker.data.disk.mapped_rows import NamedRows, RowsWriter, mapped_full
from worker.data.disk.stored import StoredInputs
from worker.data.errors import UnusableData, UnusableRow
from worker.data.prepared import NO_LOSSES, Prepared, ReadSplit
from worker.data.preprocessing import Preprocessing
from worker.data.split import Split, SplitName, places_of
from worker.data.text.reading import prepare_once, rows_from
from worker.data.text.texts import TextPreprocessing
from worker.data.text.tokenization import NO_TOKEN, train_tokenizer
from worker.targets import Targets

NO_WORD = -2
"""Fills a row of labels, or of places, after its last word."""
NO_LABEL = -1
"""Of a word without a label."""
_PADDING = {"ids": NO_TOKEN, "first_pieces": NO_WORD}
_BATCH_ROWS = 1024


def word_samples(
    dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
) -> tuple[dict[SplitName, Split], Targets]:
    """Splits of rows of words, whose labels (N, K) are class indices, and the one target."""
    (name,) = dataset.targets
    splits = {
        part: Split(
            split.inputs if isinstance(split.inputs, StoredInputs) else list(split.inputs),
            _padded_labels(split.targets[name], split.inputs),
            part=part,
            places=places_of(split),
        )
        for part, split in chosen.items()
    }
    return splits, Targets.of_classes(arrays.classes[name] or (), name=name)


def append_unlabelled_words(labels: Tensor, rows: Sequence[Sequence[str]]) -> Tensor:
    """Labels (N, K), and those of some rows after them whose words have none."""
    lengths = [len(words) for words in rows]
    whole = _no_labels(len(labels) + len(lengths), max([labels.shape[1], *lengths]), rows)
    whole[: len(labels), : labels.shape[1]] = labels
    for row, length in zip(whole[len(labels) :], lengths, strict=True):
        row[:length] = NO_LABEL
    return whole


def _padded_labels(rows: Any, inputs: Any) -> Tensor:
    whole = _no_labels(len(rows), max(map(len, rows), default=0), inputs)
    for row, labels in zip(whole, rows, strict=True):
        row[: len(labels)] = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    return whole


def _no_labels(count: int, width: int, inputs: Any) -> Tensor:
    """Room for the labels of words, which stay on disk where those do."""
    if isinstance(inputs, StoredInputs):
        return mapped_full((count, width), NO_WORD, inputs.reading.scratch)
    return torch.full((count, width), NO_WORD, dtype=torch.int64)


@dataclass(frozen=True)
class WordPreprocessing(Preprocessing):
    """Tokenizes rows of words by the network's own tokenizer; none is cut."""

    on_host: ClassVar[bool] = True
    keeps_size: ClassVar[bool] = False

    tokenizer: Any
    max_length: int
    has_limit: bool = True
    """Whether the network reads ``max_length`` pieces at most, rather than a row of any length."""

    @property
    def of_texts(self) -> TextPreprocessing:
        """The same tokenizer for whole texts."""
        return TextPreprocessing(self.tokenizer, self.max_length, has_limit=self.has_limit)

    def read(self, split: Split) -> ReadSplit:
        made = prepare_once(split, self, self._made)
        return ReadSplit(made.inputs, split.labels)

    def _made(self, split: Split) -> Prepared:
        words = split.inputs
        return Prepared(self._mapped(words) if isinstance(words, StoredInputs) else self.prepare(words), NO_LOSSES)

    def _mapped(self, rows: StoredInputs) -> NamedRows:
        scratch = rows.reading.scratch
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(RowsWriter(scratch, stored=np.int32, padding=padding, dtype=torch.int64))
                for name, padding in _PADDING.items()
            }
            for start, piece in rows.numbered_pieces(_BATCH_ROWS):
                with rows_from(start):
                    made = self.prepare(piece)
                for name, writer in writers.items():
                    writer.add(made[name], (made[name] != _PADDING[name]).sum(dim=1))
            return NamedRows({name: writer.finish() for name, writer in writers.items()})

    def prepare(self, inputs: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """See :func:`encode_words`."""
        return encode_words(self.tokenizer, inputs, max_length=self.max_length if self.has_limit else None)

    def __call__(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Removes the columns of a batch's ids (B, L) that hold padding alone."""
        return {"ids": self.of_texts(stored["ids"]), "first_pieces": stored["first_pieces"]}

    def input_shape(self, inputs: Sequence[Sequence[str]]) -> TokenShape:
        """Describes the tokenizer to a network: vocabulary, length and special tokens."""
        return self.of_texts.input_shape([])

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        self.of_texts.save(folder, input_shape=input_shape, has_token_types=has_token_types)

    @property
    def parameters(self) -> str:
        return self.of_texts.parameters

    @property
    def own_tokenizer(self) -> Any:
        return self.tokenizer


def train_word_preprocessing(rows: Sequence[Sequence[str]], spec: TokenizerSpec) -> WordPreprocessing:
    """Trains the tokenizer on these rows. Raises UnusableData."""
    tokenizer = train_tokenizer(_Joined(rows), spec.train, spec.vocab_size)
    if spec.train == "bpe":
        # A word that stands alone is read as behind a space, as nearly all words were in the training.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return WordPreprocessing(tokenizer, spec.max_length)


@dataclass(frozen=True)
class _Joined:
    """Rows of words as texts, as often as they are asked for; the rows may stay on disk."""

    rows: Iterable[Sequence[str]]

    def __iter__(self) -> Iterator[str]:
        return (" ".join(words) for words in self.rows)


def encode_words(tokenizer: Any, rows: Sequence[Sequence[str]], *, max_length: int | None) -> dict[str, Tensor]:
    """Encodes rows of words as the tokenizer does pre-tokenised text: ``ids`` (N, L), filled up with ``NO_TOKEN``, and
    ``first_pieces`` (N, K), the place of each word's first piece among them, filled up with ``NO_WORD``.

    Raises:
        UnusableRow: a word has no piece, the tokenizer has none for a character of it, or a row has more than ``max_length``.
        UnusableData: ``max_length`` leaves no room for a word.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise UnusableData(f"max_length {max_length} has no place for words beside {special} special tokens: raise it")
    ids: list[Tensor] = []
    places: list[Tensor] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        some = rows[start : start + _BATCH_ROWS]
        for offset, (pieces, words) in enumerate(_pieces(tokenizer, some, first=start)):
            row = start + offset
            if max_length is not None and len(pieces) > max_length:
                raise UnusableRow(
                    row,
                    f"its {len(some[offset])} words are {len(pieces)} pieces, and the network reads {max_length}: raise the "
                    "tokenizer's max_length (and the network's positions), or divide the row",
                )
            ids.append(torch.tensor(pieces, dtype=torch.int64))
            places.append(_first_pieces(words, some[offset], row=row))
    if not ids:
        return {name: torch.empty(0, 0, dtype=torch.int64) for name in _PADDING}
    return {
        name: pad_sequence(each, batch_first=True, padding_value=_PADDING[name])
        for name, each in (("ids", ids), ("first_pieces", places))
    }


def at_first_pieces(outputs: Tensor, first_pieces: Tensor) -> Tensor:
    """Selects each word's outputs (B, K, W) from those of all pieces (B, L, W); those of ``NO_WORD`` are of no meaning."""
    places = first_pieces.clamp(min=0).unsqueeze(-1).expand(-1, -1, outputs.shape[-1])
    return outputs.gather(1, places)


def _pieces(tokenizer: Any, rows: Sequence[Sequence[str]], *, first: int) -> list[tuple[list[int], list[int | None]]]:
    """The ids of some rows, of which the first is row ``first``, and of which word each is a piece."""
    try:
        encoded = tokenizer(
            [list(words) for words in rows],
            is_split_into_words=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    except Exception as error:  # the library raises plain Exception for a character that a tokenizer has no token for
        if len(rows) > 1:
            return [_pieces(tokenizer, [words], first=first + index)[0] for index, words in enumerate(rows)]
        problem = f"the tokenizer cannot read the words {' '.join(rows[0])[:40]!r} ({str(error)[:200]})"
        raise UnusableRow(first, f"{problem}: save it so that it can, with an unk_token, or remove the row") from error
    return [(ids, encoded.word_ids(index)) for index, ids in enumerate(encoded["input_ids"])]


def _first_pieces(words: Sequence[int | None], row_words: Sequence[str], *, row: int) -> Tensor:
    places: dict[int, int] = {}
    for place, number in enumerate(words):
        if number is not None:
            places.setdefault(number, place)
    for index, word in enumerate(row_words):
        if index not in places:
            raise UnusableRow(row, f"word {index + 1}, {word[:40]!r}, holds no token: take it out, with its tag")
    return torch.tensor([places[index] for index in range(len(row_words))], dtype=torch.int64)
