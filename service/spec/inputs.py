"""Preprocessing between the data and a network, where there is a choice: a tokenizer for texts, features for sound."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.strict import StrictModel

LEAST_VOCABULARY = {"bpe": 258, "wordpiece": 32}
"""Of ``bpe`` the 256 bytes and two special tokens; of ``wordpiece`` it depends on the texts' characters."""


class TokenizerSpec(StrictModel):
    """A tokenizer that is trained here, on the texts of the training split."""

    train: Literal["bpe", "wordpiece"]
    """``bpe``: bytes, as GPT-2 reads, so any text at all. ``wordpiece``: small letters between [CLS] and [SEP], as BERT reads."""
    vocab_size: Annotated[int, Field(ge=32, le=1_000_000)]
    """Most tokens that it may have, special ones among them."""
    max_length: Annotated[int, Field(ge=4, le=32_768)] = 128
    """Most tokens of one text; a longer text is cut."""


class LogMelFeatures(StrictModel):
    """Log-mel spectrograms of windows of 25 ms every 10 ms, at 16 kHz: images of one channel."""

    name: Literal["log-mel"] = "log-mel"
    """Which features these are."""
    mels: Annotated[int, Field(ge=8, le=512)] = 64
    """Mel bands."""


class WaveformFeatures(StrictModel):
    """The waveform itself."""

    name: Literal["waveform"]
    """Which features these are."""
    sample_rate: Annotated[int, Field(ge=1_000, le=192_000)] = 16_000
    """Samples a second; clips of another rate are resampled."""
    normalise: bool = True
    """Each clip to mean 0 and variance 1."""


Features = Annotated[LogMelFeatures | WaveformFeatures, Field(discriminator="name")]
