"""Preprocessing for causal language models: texts and chats to rows of tokens with a loss mask. N rows, L tokens."""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from service.spec.inputs import TokenizerSpec
from service.spec.shapes import InputShape, TokenShape
from service.spec.warning_message import WarningMessage
from worker.data.dataset import Data
from worker.data.disk.mapped_rows import MappedRows
from worker.data.disk.stored import StoredInputs
from worker.data.prepared import Losses, Prepared, ReadSplit
from worker.data.preprocessing import Preprocessing
from worker.data.split import Split
from worker.data.tensors import Inputs
from worker.data.text.chat_template import ChatTemplate, chat_texts, refuse_without_template, template_of
from worker.data.text.language import Framing, RowStyle, TokenRows, answered, conversed, language_inputs, packed, padded
from worker.data.text.mapped_language import mapped_isolated, mapped_packed, mapped_rows
from worker.data.text.reading import describe_unread_texts, prepare_once
from worker.data.text.texts_alone import holds_chats
from worker.data.text.tokenization import (
    END_OF_TEXT,
    framing,
    save_tokenizer,
    start_and_end,
    token_ids,
    tokenizer_settings,
    train_tokenizer,
)

_Rows = TypeVar("_Rows", bound=Inputs)

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
    chat_template: str | None = None
    """By which chats are written, in the place of the tokenizer's own."""
    reads_chats: bool = False
    """Whether the data are chats."""

    @property
    def framing(self) -> Framing:
        """The tokenizer's special tokens around a text. Raises UnreadableTokenizer."""
        return framing(self.tokenizer)

    def rows(self, split: Split) -> TokenRows:
        """Rows of a split's texts or chats, with their answers if it has any.

        Raises:
            UnusableData: a text or a chat cannot be read.
            JobFault: there is no chat template, or it does not tell what the assistant says.
        """
        style = RowStyle(
            self.max_length, refuses_longer=split.overlong == "refuse", isolates=split.is_packed and split.is_isolated
        )
        if holds_chats(split.inputs):
            chats = self._template.read(split.inputs, split.answers, length=self.max_length, cuts=not style.refuses_longer)
            return conversed(chats, self.framing, style, may_be_prompts=split.part == "train")
        texts = token_ids(self.tokenizer, split.inputs)
        if split.answers is not None:
            return answered(texts, token_ids(self.tokenizer, split.answers), self.framing, style)
        if split.is_packed and not split.is_isolated:
            return packed(texts, self.framing, length=self.max_length)
        return padded(texts, self.framing, style)

    @property
    def _template(self) -> ChatTemplate:
        if self.chat_template is None and template_of(self.tokenizer) is None:
            refuse_without_template()
        return ChatTemplate(self.tokenizer, self.chat_template, end=self.framing.end)

    def with_vocabulary(self, size: int) -> Self:
        return self if self.vocabulary == size else replace(self, vocabulary=size)

    def read(self, split: Split) -> ReadSplit:
        """Rows of the split's texts, with their answers if it has any, and the loss mask as labels. Raises UnusableData."""
        made = prepare_once(split, self, self._made)
        if isinstance(made.mask, MappedRows):
            return ReadSplit(made.inputs, torch.empty(len(made.mask), 0), made.losses, made.mask)
        return ReadSplit(made.inputs, split.labels if made.mask is None else made.mask, made.losses)

    def _made(self, split: Split) -> Prepared:
        if isinstance(split.inputs, StoredInputs):
            if split.is_packed and split.is_isolated:
                return mapped_isolated(split, self.rows, self.framing, length=self.max_length)
            if split.is_packed and split.answers is None:
                return mapped_packed(split, self.tokenizer, self.framing, length=self.max_length)
            return mapped_rows(split, self.rows, self.framing)
        rows = self.rows(split)
        return Prepared(language_inputs(rows.ids, rows.positions), rows.losses, rows.mask)

    def describe_losses(self, losses: Losses, split: Split, *, readers: str) -> Iterator[WarningMessage]:
        remedy = "raise dataset.row_tokens and the tokenizer's max_length"
        yield from describe_unread_texts(
            losses, split, readers=readers, max_length=self.max_length, cut_at="at their end", remedy=remedy
        )

    @property
    def parameters(self) -> str:
        return json.dumps([tokenizer_settings(self.tokenizer), self.max_length, self.chat_template])

    @property
    def own_tokenizer(self) -> Any:
        return self.tokenizer

    def prepare(self, inputs: Sequence[str]) -> Tensor:
        """Token ids (N, L) of texts or chats without answers, one per row, padded at the end."""
        if holds_chats(inputs):
            chats = self._template.read(inputs, None, length=self.max_length, cuts=True)
            return conversed(chats, self.framing, RowStyle(self.max_length), may_be_prompts=True).ids
        return padded(token_ids(self.tokenizer, inputs), self.framing, RowStyle(self.max_length)).ids

    def __call__(self, stored: _Rows) -> _Rows:
        """Returns stored rows (B, L) unchanged."""
        return stored

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        tokenizer = self.tokenizer
        if self.chat_template is not None:
            tokenizer = copy.copy(tokenizer)
            tokenizer.chat_template = self.chat_template
        save_tokenizer(tokenizer, folder, max_length=self.max_length, has_token_types=has_token_types)

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


class _Both(Sequence[str]):
    """Texts and then their answers, read as they are walked over."""

    def __init__(self, texts: Sequence[str], answers: Sequence[str]) -> None:
        self._parts = texts, answers

    def __iter__(self) -> Iterator[str]:
        return chain(*self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, index: Any) -> Any:
        texts, answers = self._parts
        return texts[index] if index < len(texts) else answers[index - len(texts)]


@dataclass(frozen=True)
class _ChatTexts:
    """What is written of chats, as often as it is asked for."""

    tokenizer: Any
    template: str
    split: Split

    def __iter__(self) -> Iterator[str]:
        return chat_texts(self.tokenizer, self.template, self.split.inputs, self.split.answers)


def train_language_preprocessing(data: Data, spec: TokenizerSpec) -> LanguagePreprocessing:
    """Trains the tokenizer on the training split's texts and answers. Raises UnusableData."""
    train = data.splits["train"]
    length = min(spec.max_length, data.row_tokens or spec.max_length)
    if not holds_chats(train.inputs):
        texts = train.inputs if train.answers is None else _Both(train.inputs, train.answers)
        return LanguagePreprocessing(train_tokenizer(texts, spec.train, spec.vocab_size, splits_special_tokens=False), length)
    if data.chat_template is None:
        refuse_without_template()
    # What a template writes depends on the names of the special tokens alone, which every tokenizer that is trained here has.
    nameless = train_tokenizer([END_OF_TEXT], spec.train, max(spec.vocab_size, 300), splits_special_tokens=False)
    written: Iterable[str] = _ChatTexts(nameless, data.chat_template, train)
    written = written if isinstance(train.inputs, StoredInputs) else list(written)  # once, where there is memory
    return LanguagePreprocessing(
        train_tokenizer(written, spec.train, spec.vocab_size, splits_special_tokens=False), length, **chat_settings(data)
    )


def chat_settings(data: Data) -> dict[str, Any]:
    """What a preprocessing takes of data that may be chats."""
    return {"chat_template": data.chat_template, "reads_chats": holds_chats(data.splits["train"].inputs)}


def same_chats(one: LanguagePreprocessing, other: LanguagePreprocessing) -> bool:
    """Whether two networks of one tokenizer write chats in the same way."""
    if not one.reads_chats:
        return True
    return (one.chat_template or template_of(one.tokenizer)) == (other.chat_template or template_of(other.tokenizer))
