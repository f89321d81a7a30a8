"""Texts as a causal language model reads them: rows of tokens, and which of them it is to predict. N rows, L tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from service.spec.inputs import TokenizerSpec
from service.spec.shapes import TokenShape
from worker.data.dataset import Data, Split
from worker.data.language import Framing, TokenRows, answered, packed, padded
from worker.data.tokenization import framing, start_and_end, token_ids, train_tokenizer


@dataclass(frozen=True)
class LanguagePreprocessing:
    """A network's own tokenizer; rows have ``max_length`` tokens at most."""

    on_host: ClassVar[bool] = False
    keeps_size: ClassVar[bool] = False

    tokenizer: Any
    max_length: int

    @property
    def framing(self) -> Framing:
        """What stands around a text. Raises UnreadableTokenizer."""
        return framing(self.tokenizer)

    def rows(self, split: Split) -> TokenRows:
        """A split's texts, with their answers where it has some. Raises UnusableData."""
        texts = token_ids(self.tokenizer, split.inputs)
        if split.answers is not None:
            return answered(texts, token_ids(self.tokenizer, split.answers), self.framing, length=self.max_length)
        return (packed if split.is_packed else padded)(texts, self.framing, length=self.max_length)

    def prepare(self, inputs: Sequence[str]) -> Tensor:
        """Token ids (N, L) of texts alone, one a row, padded at the end."""
        return padded(token_ids(self.tokenizer, inputs), self.framing, length=self.max_length).ids

    def __call__(self, stored: Tensor) -> Tensor:
        """As they are."""
        return stored

    def input_shape(self, inputs: Sequence[str]) -> TokenShape:
        """Says what a network must know of the tokenizer."""
        start, _ = start_and_end(self.tokenizer)
        around = self.framing
        return TokenShape(
            vocabulary=len(self.tokenizer),
            length=self.max_length,
            pad=around.pad,
            start=start,
            end=around.end,
            predicts_tokens=True,
        )


def train_language_preprocessing(data: Data, spec: TokenizerSpec) -> LanguagePreprocessing:
    """With a vocabulary of the training split's texts and answers. Raises UnusableData."""
    train = data.splits["train"]
    tokenizer = train_tokenizer([*train.inputs, *(train.answers or [])], spec.train, spec.vocab_size)
    return LanguagePreprocessing(tokenizer, min(spec.max_length, data.row_tokens or spec.max_length))
