"""Audio files: WAV and FLAC, decoded to one channel. Other formats are recognised by their first bytes and refused by name.

Invariant: decoded samples are finite and in [-1, 1], and decoding needs only a few MB of memory beside them.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import soundfile
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import Waveform
from service.formats.media.encoded import EncodedAudio, sound_digest
from service.spec.data import Column

MAX_SECONDS = 30 * 60
MAX_SAMPLES = 2**27
"""Of one channel: 30 minutes at 74 kHz. A FLAC of silence decodes to a thousand times its size."""
MIN_RATE, MAX_RATE = 1_000, 384_000
_MAX_OVERSHOOT = 2.0
"""Resampling and mixing exceed full scale slightly; floating-point samples far beyond it were never scaled to it."""
_VALUES_AT_ONCE = 2**20
_SUBTYPES = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
_UNKNOWN_SIZES = {0, 0xFFFFFFFF}
"""The sizes that programs write which cannot seek back, as into a pipe."""
_HOW_TO_SAVE = "save it as 16-bit WAV or as FLAC"
# Offset, first bytes and name, for the error message.
_OTHER_FORMATS = [
    (0, b"OggS", "Ogg (Vorbis or Opus)"),
    (0, b"ID3", "MP3"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"RF64", "RF64"),
    (0, b"riff", "W64"),
]


def check_audio(data: bytes, *, place: str) -> EncodedAudio:
    """Decodes a file as :func:`decode_audio` does, and returns it as it is with its length. Raises InvalidFile."""
    sound = decode_audio(data, place=place)
    return EncodedAudio(data, num_samples=len(sound.samples), rate=sound.rate, digest=sound_digest(sound.samples, sound.rate))


def decode_audio(data: bytes, *, place: str) -> Waveform:
    """Decodes a WAV or FLAC file of any bit depth; several channels are averaged.

    Raises:
        InvalidFile: it is another format, broken, empty, far too long, or holds NaN or numbers far beyond [-1, 1].
    """
    _check_format(data, place)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, place)
            samples = np.empty(file.frames, dtype=np.float32)
            filled = 0
            for block in _blocks(file):
                samples[filled : filled + len(block)] = _to_mono(block, place=place, first=filled, rate=file.samplerate)
                filled += len(block)
            rate = int(file.samplerate)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, OverflowError) as error:
        raise InvalidFile(f"{place} is a broken WAV or FLAC: {_reason(error)}; {_HOW_TO_SAVE} again") from error
    if filled < len(samples):
        raise InvalidFile(f"{place} is cut off: {filled:,} of its {len(samples):,} samples are there; {_HOW_TO_SAVE} again")
    return Waveform(samples=samples, rate=rate)


@dataclass
class AudioExtent:
    """A running total of the audio of a dataset."""

    num_bytes: int = 0
    longest_seconds: float = 0.0
    rates: set[int] = field(default_factory=set)

    def add(self, clip: EncodedAudio, *, max_unpacked_bytes: int) -> None:
        """Adds one clip. Raises InvalidFile if the total exceeds the limit."""
        self.num_bytes += clip.decoded_bytes
        if self.num_bytes > max_unpacked_bytes:
            raise InvalidFile(f"unpacked, the sound has more than {max_unpacked_bytes:,} bytes; send less, or at a lower rate")
        self.longest_seconds = max(self.longest_seconds, clip.num_samples / clip.rate)
        self.rates.add(clip.rate)

    def column(self) -> Column:
        """The description of the audio column."""
        return Column(kind="audio", dtype="float32", rates=sorted(self.rates)[:20], longest_seconds=self.longest_seconds)


def _check_format(data: bytes, place: str) -> None:
    if not data:
        raise InvalidFile(f"{place} is empty; remove it, or {_HOW_TO_SAVE}")
    if data[:4] == b"fLaC":
        return
    if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
        _check_whole(data, place)
        return
    found = next((name for start, magic, name in _OTHER_FORMATS if data[start : start + len(magic)] == magic), None)
    if found is None and data[:1] == b"\xff" and data[1:2] >= b"\xe0":
        found = "MP3 or AAC"
    what = f"is {found}, which is not read" if found else "is neither a WAV nor a FLAC"
    raise InvalidFile(f"{place} {what}; {_HOW_TO_SAVE}")


def _check_whole(data: bytes, place: str) -> None:
    """Refuses a truncated WAV, which libsndfile would read as a shorter one."""
    size_format = "<I" if data[:4] == b"RIFF" else ">I"
    position = 12
    while position + 8 <= len(data):
        (size,) = struct.unpack_from(size_format, data, position + 4)
        is_samples = data[position : position + 4] == b"data"
        position += 8
        if is_samples and size not in _UNKNOWN_SIZES and size > len(data) - position:
            raise InvalidFile(
                f"{place} is cut off: {len(data) - position:,} of its {size:,} bytes of samples are there; {_HOW_TO_SAVE} again"
            )
        if is_samples:
            return
        position += size + size % 2


def _check_header(file: soundfile.SoundFile, place: str) -> None:
    if file.subtype not in _SUBTYPES:
        raise InvalidFile(f"{place} is compressed as {file.subtype_info}, which is not read; {_HOW_TO_SAVE}")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise InvalidFile(
            f"{place} has {file.samplerate:,} samples a second; there may be {MIN_RATE:,} to {MAX_RATE:,}: resample it"
        )
    if file.frames < 1:
        raise InvalidFile(f"{place} holds no sound; remove it")
    if file.frames > min(MAX_SAMPLES, MAX_SECONDS * file.samplerate):
        raise InvalidFile(
            f"{place} is {file.frames / file.samplerate:,.0f} s long, {file.frames:,} samples; at most {MAX_SECONDS:,} s and "
            f"{MAX_SAMPLES:,} samples may be: cut it into clips"
        )


def _blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """Yields blocks (T, channels)."""
    frames_at_once = max(1, _VALUES_AT_ONCE // file.channels)
    while len(block := file.read(frames_at_once, dtype="float32", always_2d=True)):
        yield block


def _to_mono(block: NDArray[np.float32], *, place: str, first: int, rate: int) -> NDArray[np.float32]:
    largest = np.abs(block).max(axis=1)
    wrong = ~(largest <= _MAX_OVERSHOOT)  # NaN compares as false
    if wrong.any():
        at = int(np.argmax(wrong))
        seconds = (first + at) / rate
        if np.isfinite(largest[at]):
            raise InvalidFile(f"{place} holds {largest[at]:.6g} at {seconds:.3f} s; scale the samples to -1 to 1")
        raise InvalidFile(f"{place} holds NaN or an infinite number at {seconds:.3f} s; remove or mend it")
    mono: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
    return np.clip(mono, -1.0, 1.0)


def _reason(error: Exception) -> str:
    # str(error) also contains the address of the buffer.
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").strip().rstrip(".")[:200]
