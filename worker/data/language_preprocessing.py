"""Preprocessing for causal language models: texts to rows of tokens with a loss mask. N rows, L tokens."""

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
    """Tokenizes by the network's own tokenizer into rows of at most ``max_length`` tokens."""

    on_host: ClassVar[bool] = False
    keeps_size: ClassVar[bool] = False

    tokenizer: Any
    max_length: int

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

    def prepare(self, inputs: Sequence[str]) -> Tensor:
        """Token ids (N, L) of texts without answers, one per row, padded at the end."""
        return padded(token_ids(self.tokenizer, inputs), self.framing, length=self.max_length).ids

    def __call__(self, stored: Tensor) -> Tensor:
        """Returns stored rows (B, L) unchanged."""
        return stored

    def input_shape(self, inputs: Sequence[str]) -> TokenShape:
        """Describes the tokenizer to a network: vocabulary, length and special tokens."""
        start, _ = start_and_end(self.tokenizer)
        framed = self.framing
        return TokenShape(
            vocabulary=len(self.tokenizer),
            length=self.max_length,
            pad=framed.pad,
            start=start,
            end=framed.end,
            predicts_tokens=True,
        )


def train_language_preprocessing(data: Data, spec: TokenizerSpec) -> LanguagePreprocessing:
    """Trains the tokenizer on the training split's texts and answers. Raises UnusableData."""
    train = data.splits["train"]
    texts = [*train.inputs, *(train.answers or [])]
    tokenizer = train_tokenizer(texts, spec.train, spec.vocab_size, splits_special_tokens=False)
    return LanguagePreprocessing(tokenizer, min(spec.max_length, data.row_tokens or spec.max_length))
