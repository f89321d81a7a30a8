"""Preprocessing of texts: token ids, each batch as long as its longest text. N texts, B batch, L tokens."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from service.spec.inputs import TokenizerSpec
from service.spec.shapes import InputShape, TokenShape
from service.spec.warning_message import WarningMessage
from worker.data.dataset import Split
from worker.data.prepared import Losses, Prepared, ReadSplit
from worker.data.preprocessing import Preprocessing
from worker.data.reading import describe_unread_texts, prepare_once
from worker.data.tokenization import NO_TOKEN, encode, save_tokenizer, start_and_end, tokenizer_settings, train_tokenizer

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
        ids = self.prepare(split.inputs)
        return Prepared(ids, Losses(texts=self._cut_texts(split, ids)))

    def _cut_texts(self, split: Split, ids: Tensor) -> tuple[int, int]:
        """How many texts are longer than the network reads, and the first of them; of very many an estimate."""
        if not self.has_limit or ids.shape[1] < self.max_length:
            return 0, 0
        full = (ids[:, -1] != NO_TOKEN).nonzero().flatten().tolist()
        some = [self.prompt + split.inputs[row] for row in full[:_COUNTED_TEXTS]]
        whole = self.tokenizer(some, return_attention_mask=False, verbose=False)["input_ids"] if some else []
        cut = [row for row, tokens in zip(full, whole, strict=False) if len(tokens) > self.max_length]
        return (round(len(full) * len(cut) / len(some)), cut[0]) if cut else (0, 0)

    def describe_losses(self, losses: Losses, split: Split, *, readers: str) -> Iterator[WarningMessage]:
        cut_at = "at their beginning" if self.tokenizer.truncation_side == "left" else "at their end"
        yield from describe_unread_texts(
            losses, split, readers=readers, max_length=self.max_length, cut_at=cut_at, remedy="raise max_length"
        )

    @property
    def parameters(self) -> str:
        return json.dumps([tokenizer_settings(self.tokenizer, prompt=self.prompt), self.max_length])

    @property
    def own_tokenizer(self) -> Any:
        return self.tokenizer

    def prepare(self, inputs: Sequence[str]) -> Tensor:
        """Token ids (N, L), filled up with ``NO_TOKEN`` at their end."""
        texts = [self.prompt + text for text in inputs] if self.prompt else inputs
        return encode(self.tokenizer, texts, max_length=self.max_length if self.has_limit else None)

    def __call__(self, stored: Tensor) -> Tensor:
        """Removes the columns of a batch (B, L) that hold padding alone."""
        used = (stored != NO_TOKEN).any(dim=0).nonzero()
        return stored[:, : int(used[-1]) + 1] if len(used) else stored[:, :1]

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        save_tokenizer(self.tokenizer, folder, max_length=self.max_length, has_token_types=has_token_types)

    def input_shape(self, inputs: Sequence[str]) -> TokenShape:
        """Describes the tokenizer to a network: vocabulary, length and special tokens."""
        start, end = start_and_end(self.tokenizer)
        return TokenShape(
            vocabulary=self.vocabulary or len(self.tokenizer),
            length=self.max_length,
            pad=self.tokenizer.pad_token_id,
            start=start,
            end=end,
        )


def train_text_preprocessing(texts: Sequence[str], spec: TokenizerSpec) -> TextPreprocessing:
    """Trains the tokenizer on these texts. Raises UnusableData."""
    return TextPreprocessing(train_tokenizer(texts, spec.train, spec.vocab_size), spec.max_length)
