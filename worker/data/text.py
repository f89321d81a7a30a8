"""Preprocessing of texts: token ids, each batch as long as its longest text. N texts, B batch, L tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from service.spec.inputs import TokenizerSpec
from service.spec.shapes import TokenShape
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.preprocessing import Preprocessing
from worker.data.tokenization import NO_TOKEN, encode, start_and_end, train_tokenizer


@dataclass(frozen=True)
class TextPreprocessing:
    """Tokenizes by the network's own tokenizer; texts are cut at ``max_length`` tokens."""

    on_host: ClassVar[bool] = True
    keeps_size: ClassVar[bool] = False

    tokenizer: Any
    max_length: int
    is_embedded: bool = False
    """Whether the network is an embedding network, whose output is a vector for the text."""
    prompt: str = ""
    """Stands before every text."""
    has_limit: bool = True
    """Whether texts are cut. A network of relative positions reads a text of any length, if its tokenizer has no limit."""

    def prepare(self, inputs: Sequence[str]) -> Tensor:
        """Token ids (N, L), filled up with ``NO_TOKEN`` at their end."""
        texts = [self.prompt + text for text in inputs] if self.prompt else inputs
        return encode(self.tokenizer, texts, max_length=self.max_length if self.has_limit else None)

    def __call__(self, stored: Tensor) -> Tensor:
        """Removes the columns of a batch (B, L) that hold padding alone."""
        used = (stored != NO_TOKEN).any(dim=0).nonzero()
        return stored[:, : int(used[-1]) + 1] if len(used) else stored[:, :1]

    def input_shape(self, inputs: Sequence[str]) -> TokenShape:
        """Describes the tokenizer to a network: vocabulary, length and special tokens."""
        start, end = start_and_end(self.tokenizer)
        return TokenShape(
            vocabulary=len(self.tokenizer),
            length=self.max_length,
            pad=self.tokenizer.pad_token_id,
            start=start,
            end=end,
            is_embedded=self.is_embedded,
        )


def same_tokens(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both tokenize a text identically; True if either reads no texts."""
    reads_texts = TextPreprocessing | LanguagePreprocessing
    if not (isinstance(one, reads_texts) and isinstance(other, reads_texts)) or one is other:
        return True
    return one.max_length == other.max_length and tokenizer_settings(one) == tokenizer_settings(other)


def tokenizer_settings(reads: "TextPreprocessing | LanguagePreprocessing") -> str:
    """Everything of a tokenizer that a text's ids depend on, and what stands before every text, as one string."""
    tokenizer = reads.tokenizer
    # The serialisation also holds the length that the last encoding was truncated to.
    parts = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    prompt = reads.prompt if isinstance(reads, TextPreprocessing) else ""
    how = [tokenizer.pad_token_id, tokenizer.truncation_side, tokenizer.split_special_tokens, prompt]
    return json.dumps([parts, special, *how], sort_keys=True)


def train_text_preprocessing(texts: Sequence[str], spec: TokenizerSpec) -> TextPreprocessing:
    """Trains the tokenizer on these texts. Raises UnusableData."""
    return TextPreprocessing(train_tokenizer(texts, spec.train, spec.vocab_size), spec.max_length)
