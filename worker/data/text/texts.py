"""Preprocessing of texts, or pairs of texts: token ids, each batch as long as its longest. N texts, B batch, L tokens."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.formats import TextPair
from service.spec.inputs import TokenizerSpec
from service.spec.shapes import InputShape, TokenShape
from service.spec.warning_message import WarningMessage
from worker.data.disk.mapped_rows import MappedRows, RowsWriter
from worker.data.disk.stored import StoredInputs
from worker.data.prepared import NO_LOSSES, Losses, Prepared, ReadSplit
from worker.data.preprocessing import Preprocessing, first, take
from worker.data.raw_inputs import are_pairs
from worker.data.split import Split
from worker.data.text.reading import describe_unread_texts, prepare_once, rows_from
from worker.data.text.tokenization import (
    NO_TOKEN,
    count_pair_tokens,
    encode,
    encode_pairs,
    gives_token_types,
    save_tokenizer,
    start_and_end,
    tokenizer_settings,
    train_tokenizer,
)

_COUNTED_TEXTS = 2_000
"""Of the texts that fill a whole row, so many are tokenised again to see which of them were cut."""


@dataclass(frozen=True)
class TextPreprocessing(Preprocessing):
    """Tokenizes by the network's own tokenizer; texts are cut at ``max_length`` tokens."""

    on_host: ClassVar[bool] = True
    keeps_size: ClassVar[bool] = False

    tokenizer: Any
    max_length: int
    prompt: str = ""
    """Stands before every text."""
    has_limit: bool = True
    """Whether texts are cut. A network of relative positions reads a text of any length, if its tokenizer has no limit."""
    vocabulary: int | None = None
    """Number of tokens that a network is built for; None for the tokenizer's."""

    def with_vocabulary(self, size: int) -> Self:
        return self if self.vocabulary == size else replace(self, vocabulary=size)

    def read(self, split: Split) -> ReadSplit:
        made = prepare_once(split, self, self._made)
        return ReadSplit(made.inputs, split.labels, made.losses)

    def _made(self, split: Split) -> Prepared:
        ids = self._mapped(split.inputs) if isinstance(split.inputs, StoredInputs) else self.prepare(split.inputs)
        return Prepared(ids, self._losses(split, ids))

    def _mapped(self, texts: StoredInputs) -> MappedRows:
        with RowsWriter(texts.reading.scratch, stored=np.int32, padding=NO_TOKEN, dtype=torch.int64) as writer:
            for start, piece in texts.numbered_pieces():
                with rows_from(start):
                    ids = self.prepare(piece)
                writer.add(ids, (ids != NO_TOKEN).sum(dim=1))
            return writer.finish()

    def _losses(self, split: Split, ids: Tensor | MappedRows) -> Losses:
        """How many texts are longer than the network reads, and the first of them; of very many an estimate."""
        if not self.has_limit or ids.shape[1] < self.max_length:
            return NO_LOSSES
        is_full = ids.lengths == ids.width if isinstance(ids, MappedRows) else (ids[:, -1] != NO_TOKEN).numpy()
        full = np.flatnonzero(is_full)
        some = take(split.inputs, full[:_COUNTED_TEXTS])
        if not are_pairs(some):
            texts = [self.prompt + text for text in some]
            whole = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"] if texts else []
            return Losses(texts=_counted(full, [len(tokens) > self.max_length for tokens in whole]))
        whole, read = (count_pair_tokens(self.tokenizer, some, max_length=length) for length in (None, self.max_length))
        first_texts, second_texts = (whole > read).T.tolist()
        return Losses(texts=_counted(full, first_texts), second_texts=_counted(full, second_texts))

    def describe_losses(self, losses: Losses, split: Split, *, readers: str) -> Iterator[WarningMessage]:
        cut_at = "at their beginning" if self.tokenizer.truncation_side == "left" else "at their end"
        yield from describe_unread_texts(
            losses,
            split,
            readers=readers,
            max_length=self.max_length,
            cut_at=cut_at,
            remedy="raise max_length",
            texts="first texts" if are_pairs(first(split.inputs, 1)) else "texts",
        )

    @property
    def parameters(self) -> str:
        return json.dumps([tokenizer_settings(self.tokenizer, prompt=self.prompt), self.max_length, self.has_limit])

    @property
    def own_tokenizer(self) -> Any:
        return self.tokenizer

    def prepare(self, inputs: Sequence[str] | Sequence[TextPair]) -> Tensor:
        """Token ids (N, L), of pairs with their types, filled up with ``NO_TOKEN`` at their end."""
        max_length = self.max_length if self.has_limit else None
        if are_pairs(inputs):
            return encode_pairs(self.tokenizer, inputs, max_length=max_length)
        texts = cast(Sequence[str], inputs)
        return encode(self.tokenizer, [self.prompt + text for text in texts] if self.prompt else texts, max_length=max_length)

    def __call__(self, stored: Tensor) -> Tensor:
        """Removes the columns of a batch (B, L) that hold padding alone."""
        used = (stored != NO_TOKEN).any(dim=0).nonzero()
        return stored[:, : int(used[-1]) + 1] if len(used) else stored[:, :1]

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        save_tokenizer(self.tokenizer, folder, max_length=self.max_length, has_token_types=has_token_types)

    def input_shape(self, inputs: Sequence[str] | Sequence[TextPair]) -> TokenShape:
        """Describes the tokenizer to a network: vocabulary, length and special tokens."""
        start, end = start_and_end(self.tokenizer)
        return TokenShape(
            vocabulary=self.vocabulary or len(self.tokenizer),
            length=self.max_length,
            pad=self.tokenizer.pad_token_id,
            start=start,
            end=end,
            has_types=are_pairs(first(inputs, 1)) and gives_token_types(self.tokenizer),
        )


def train_text_preprocessing(inputs: Sequence[str] | Sequence[TextPair], spec: TokenizerSpec) -> TextPreprocessing:
    """Trains the tokenizer on these texts, for pairs on both texts of each. Raises UnusableData."""
    pairs = are_pairs(inputs)
    texts = _BothTexts(cast(Sequence[TextPair], inputs)) if pairs else cast(Sequence[str], inputs)
    return TextPreprocessing(train_tokenizer(texts, spec.train, spec.vocab_size, reads_pairs=pairs), spec.max_length)


@dataclass(frozen=True)
class _BothTexts:
    """The texts of pairs, one after the other, as often as they are asked for; the pairs may stay on disk."""

    pairs: Sequence[TextPair]

    def __iter__(self) -> Iterator[str]:
        return (text for pair in self.pairs for text in pair)


def _counted(rows: NDArray[np.int64], is_cut: Sequence[bool]) -> tuple[int, int]:
    """How many of the rows are cut, by what is known of the first of them, and the first."""
    cut = [int(row) for row, each in zip(rows, is_cut, strict=False) if each]
    return (round(len(rows) * len(cut) / len(is_cut)), cut[0]) if cut else (0, 0)
