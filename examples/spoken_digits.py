"""A dataset of spoken digits: ten words, several accents and speakers, speeds and pitches, made by espeak-ng.

    python examples/spoken_digits.py digits.zip
    python examples/spoken_digits.py digits.parquet --variations 100

The zip holds a FLAC for each sample, ``train/7/03-en-us+f3.flac``; the Parquet file has the columns ``audio`` ({bytes, path}),
``label`` and ``split``. Who speaks in the test split speaks in no other.

espeak-ng comes from the package ``espeakng-loader``, else from the system (``apt install espeak-ng``). From version 1.52 on, the
package's, the same arguments give the same file.
"""

import argparse
import ctypes
import ctypes.util
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import gcd
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCENTS = ["en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"]
SPEAKERS = ["m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3"]
TEST_SPEAKERS = ["m5", "m6", "f4", "f5"]
WORDS_A_MINUTE = (110, 220)
PITCHES = (20, 80)
PEAKS = (0.2, 0.9)
MARGIN_SECONDS = 0.025
"""Of silence that stays around a word."""

_RETRIEVAL, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3
_ZIP_DATE = (2025, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Utterance:
    """One sample to be spoken."""

    split: str
    digit: int
    number: int
    """Among those of its digit and split."""
    voice: str
    words_a_minute: int
    pitch: int
    peak: float

    @property
    def path(self) -> str:
        return f"{self.split}/{self.digit}/{self.number:02}-{self.voice}.flac"


def make(path: Path, *, variations: int = 40, rate: int = 16_000, seed: int = 0) -> None:
    """Writes a zip, or a Parquet file where ``path`` ends so, with ``variations`` samples of each digit.

    Raises:
        RuntimeError: espeak-ng cannot be loaded.
    """
    utterances = list(plan(variations=variations, seed=seed))
    # In a process of its own: what was spoken before changes the noise in what is spoken next.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        files = executor.submit(speak, utterances, rate).result()
    if path.suffix == ".parquet":
        _write_parquet(path, utterances, files)
    else:
        _write_zip(path, utterances, files)


def plan(*, variations: int, seed: int) -> Iterator[Utterance]:
    """Of each digit about 70 percent for train, 10 for validation and 20 for test, and one of each at least."""
    if variations < 3:
        raise ValueError(f"{variations} variations are no train, validation and test split; ask for at least 3")
    random = np.random.RandomState(seed)
    validation, test = max(1, variations // 10), max(1, variations // 5)
    sizes = {"train": variations - validation - test, "validation": validation, "test": test}
    for split, size in sizes.items():
        speakers = TEST_SPEAKERS if split == "test" else SPEAKERS
        for digit in range(len(WORDS)):
            for number in range(size):
                yield Utterance(
                    split=split,
                    digit=digit,
                    number=number,
                    voice=f"{ACCENTS[random.randint(len(ACCENTS))]}+{speakers[random.randint(len(speakers))]}",
                    words_a_minute=int(random.randint(*WORDS_A_MINUTE)),
                    pitch=int(random.randint(*PITCHES)),
                    peak=float(random.uniform(*PEAKS)),
                )


def speak(utterances: Sequence[Utterance], rate: int) -> list[bytes]:
    """Each utterance as a FLAC of 16 bits and one channel."""
    espeak = Espeak()
    files = []
    for utterance in utterances:
        samples = _trimmed(espeak.say(WORDS[utterance.digit], utterance), espeak.rate)
        common = gcd(rate, espeak.rate)
        samples = resample_poly(samples, rate // common, espeak.rate // common)
        samples *= utterance.peak / np.abs(samples).max()
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
        files.append(buffer.getvalue())
    return files


class Espeak:
    """The library, loaded once in a process: it keeps its state in globals."""

    def __init__(self) -> None:
        self._library, data = _load()
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self.rate: int = self._library.espeak_Initialize(_RETRIEVAL, 0, data, _DONT_EXIT)
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng finds no data in {data.decode() if data else 'its own folder'}: install it again")
        # Breath and hiss are drawn from a generator that the clock has seeded. Before version 1.52 nothing else can seed it.
        if hasattr(self._library, "espeak_ng_SetRandSeed"):
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._blocks: list[NDArray[np.int16]] = []
        # Kept for as long as the library may call it.
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, utterance: Utterance) -> NDArray[np.float32]:
        """The samples (T,), -1 to 1, at ``rate``."""
        self._blocks.clear()
        encoded = text.encode()
        failed = (
            self._library.espeak_SetVoiceByName(utterance.voice.encode())
            or self._library.espeak_SetParameter(_RATE_PARAMETER, utterance.words_a_minute, 0)
            or self._library.espeak_SetParameter(_PITCH_PARAMETER, utterance.pitch, 0)
            or self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
            or self._library.espeak_Synchronize()
        )
        if failed or not self._blocks:
            raise RuntimeError(f"espeak-ng cannot say {text!r} with the voice {utterance.voice!r}")
        return np.concatenate(self._blocks).astype(np.float32) / np.float32(2**15)

    def _take(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0


def _load() -> tuple[ctypes.CDLL, bytes | None]:
    """The library, and its data's folder where that is not its own."""
    try:
        import espeakng_loader

        return ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path().encode()
    except (ImportError, OSError, RuntimeError):
        found = ctypes.util.find_library("espeak-ng")
    if found is None:
        raise RuntimeError("espeak-ng is not here: pip install espeakng-loader, or apt install espeak-ng")
    return ctypes.CDLL(found), None


def _trimmed(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    margin = int(MARGIN_SECONDS * rate)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


def _write_zip(path: Path, utterances: Sequence[Utterance], files: Sequence[bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for utterance, data in zip(utterances, files, strict=True):
            archive.writestr(zipfile.ZipInfo(utterance.path, date_time=_ZIP_DATE), data)


def _write_parquet(path: Path, utterances: Sequence[Utterance], files: Sequence[bytes]) -> None:
    columns = {
        "audio": [{"bytes": data, "path": utterance.path} for utterance, data in zip(utterances, files, strict=True)],
        "label": [str(utterance.digit) for utterance in utterances],
        "split": [utterance.split for utterance in utterances],
    }
    pq.write_table(pa.table(columns), path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a dataset of spoken digits with espeak-ng.")
    parser.add_argument("out", type=Path, help="a file that ends in .zip or .parquet")
    parser.add_argument("--variations", type=int, default=40, help="samples of each digit (40)")
    parser.add_argument("--rate", type=int, default=16_000, help="samples a second (16000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other voices (0)")
    arguments = parser.parse_args()
    if arguments.out.suffix not in {".zip", ".parquet"}:
        parser.error(f"{arguments.out} ends neither in .zip nor in .parquet")
    if arguments.variations < 3:
        parser.error("at least 3 variations are needed: one each for train, validation and test")
    try:
        make(arguments.out, variations=arguments.variations, rate=arguments.rate, seed=arguments.seed)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
