"""Sound, and the bytes of the files that hold it."""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray


def some_sound(num_samples: int = 800, *, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """(T,) or, of several channels, (T, channels)."""
    shape = num_samples if channels == 1 else (num_samples, channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def sound_file(samples: NDArray[np.float32], *, rate: int = 8_000, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()
