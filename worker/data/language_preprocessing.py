"""Preprocessing for causal language models: texts to rows of tokens with a loss mask. N rows, L tokens."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from service.spec.inputs import TokenizerSpec
from service.spec.shapes import InputShape, TokenShape
from service.spec.warning_message import WarningMessage
from worker.data.dataset import Data, Split
from worker.data.language import Framing, TokenRows, answered, packed, padded
from worker.data.prepared import Losses, Prepared, ReadSplit
from worker.data.preprocessing import Preprocessing
from worker.data.reading import describe_unread_texts, prepare_once
from worker.data.tokenization import framing, save_tokenizer, start_and_end, token_ids, tokenizer_settings, train_tokenizer

USUAL_ROW_TOKENS = 1024
"""The maximum number of tokens of a pretrained language model's rows, if the spec has none."""


@dataclass(frozen=True)
class LanguagePreprocessing(Preprocessing):
    """Tokenizes by the network's own tokenizer into rows of at most ``max_length`` tokens."""

    keeps_size: ClassVar[bool] = False

    tokenizer: Any
    max_length: int
    vocabulary: int | None = None
    """Number of tokens that a network is built for; None for the tokenizer's."""

    @property
    def framing(self) -> Framing:
        """The tokenizer's special tokens around a text. Raises UnreadableTokenizer."""
        return framing(self.tokenizer)

    def rows(self, split: Split) -> TokenRows:
        """Rows of a split's texts, with their answers if it has any. Raises UnusableData."""
        texts = token_ids(self.tokenizer, split.inputs)
        if split.answers is not None:
            return answered(texts, token_ids(self.tokenizer, split.answers), self.framing, length=self.max_length)
        return (packed if split.is_packed else padded)(texts, self.framing, length=self.max_length)

    def with_vocabulary(self, size: int) -> Self:
        return self if self.vocabulary == size else replace(self, vocabulary=size)

    def read(self, split: Split) -> ReadSplit:
        """Rows of the split's texts, with their answers if it has any, and the loss mask as labels. Raises UnusableData."""
        made = prepare_once(split, self, self._made)
        return ReadSplit(made.inputs, split.labels if made.mask is None else made.mask, made.losses)

    def _made(self, split: Split) -> Prepared:
        rows = self.rows(split)
        return Prepared(rows.ids, rows.losses, rows.mask)

    def describe_losses(self, losses: Losses, split: Split, *, readers: str) -> Iterator[WarningMessage]:
        remedy = "raise dataset.row_tokens and the tokenizer's max_length"
        yield from describe_unread_texts(
            losses, split, readers=readers, max_length=self.max_length, cut_at="at their end", remedy=remedy
        )

    @property
    def parameters(self) -> str:
        return json.dumps([tokenizer_settings(self.tokenizer), self.max_length])

    @property
    def own_tokenizer(self) -> Any:
        return self.tokenizer

    def prepare(self, inputs: Sequence[str]) -> Tensor:
        """Token ids (N, L) of texts without answers, one per row, padded at the end."""
        return padded(token_ids(self.tokenizer, inputs), self.framing, length=self.max_length).ids

    def __call__(self, stored: Tensor) -> Tensor:
        """Returns stored rows (B, L) unchanged."""
        return stored

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        save_tokenizer(self.tokenizer, folder, max_length=self.max_length, has_token_types=has_token_types)

    def input_shape(self, inputs: Sequence[str]) -> TokenShape:
        """Describes the tokenizer to a network: vocabulary, length and special tokens."""
        start, _ = start_and_end(self.tokenizer)
        framed = self.framing
        return TokenShape(
            vocabulary=self.vocabulary or len(self.tokenizer),
            length=self.max_length,
            pad=framed.pad,
            start=start,
            end=framed.end,
        )


def train_language_preprocessing(data: Data, spec: TokenizerSpec) -> LanguagePreprocessing:
    """Trains the tokenizer on the training split's texts and answers. Raises UnusableData."""
    train = data.splits["train"]
    texts = [*train.inputs, *(train.answers or [])]
    tokenizer = train_tokenizer(texts, spec.train, spec.vocab_size, splits_special_tokens=False)
    return LanguagePreprocessing(tokenizer, min(spec.max_length, data.row_tokens or spec.max_length))
