"""Images and clips of sound as the files that they came in: checked once by a reader, decoded where they are needed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16


@dataclass(frozen=True)
class EncodedImage:
    """One image file. H height, W width, C channels, as a viewer shows it."""

    data: bytes
    height: int
    width: int
    channels: int
    digest: bytes
    """:func:`pixels_digest` of its pixels (C, H, W)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W), or with several channels (H, W, C)."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    @property
    def decoded_bytes(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True)
class EncodedAudio:
    """One sound file."""

    data: bytes
    num_samples: int
    """Of one channel."""
    rate: int
    """Samples per second."""
    digest: bytes
    """:func:`sound_digest` of its samples."""

    @property
    def decoded_bytes(self) -> int:
        return self.num_samples * np.dtype(np.float32).itemsize


def pixels_digest(pixels: NDArray[np.generic]) -> bytes:
    """Of one image (C, H, W): equal for equal pixels in the same places, whatever file they came in."""
    return _digest(f"{pixels.shape}\n".encode(), np.ascontiguousarray(pixels).data)


def sound_digest(samples: NDArray[np.float32], rate: int) -> bytes:
    """Of one channel (T,)."""
    return _digest(f"{rate}\n".encode() + samples.tobytes())


def text_digest(text: str | Sequence[str]) -> bytes:
    """Of a text, or of the words of one."""
    whole = text if isinstance(text, str) else json.dumps(list(text))
    return _digest(whole.encode(errors="surrogatepass"))


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
