"""Parquet files of sound: as pandas and HuggingFace's datasets write them, and what is refused with its row."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidFile
from service.formats import Waveform
from tests.unit.formats.files import inspect, read, refusal, target, write_parquet
from tests.unit.formats.sounds import some_sound, sound_file

SOUNDS = [some_sound(300 + 50 * index, seed=index) for index in range(6)]
FILES = [sound_file(sound, subtype="FLOAT", rate=8_000 if index else 16_000) for index, sound in enumerate(SOUNDS)]
LABELS = ["yes", "no", "yes", "no", "yes", "no"]
SPLITS = ["train", "train", "test", "train", "train", "test"]


@pytest.mark.parametrize(
    "stored",
    [
        FILES,
        pa.array(FILES, pa.large_binary()),
        [{"bytes": data, "path": f"{index}.wav"} for index, data in enumerate(FILES)],
    ],
    ids=["bytes", "large bytes", "HuggingFace"],
)
def test_sound_is_read_split_by_split_with_its_own_rate(tmp_path: Path, stored: Any) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"audio": stored, "label": LABELS, "split": SPLITS})
    arrays = read(path, task="audio-classification")
    assert arrays.classes == {"label": ["no", "yes"]}
    assert target(arrays.splits["train"]) == [1, 0, 0, 1]
    for split, rows in (("train", [0, 1, 3, 4]), ("test", [2, 5])):
        for clip, row in zip(arrays.splits[split].inputs, rows, strict=True):
            assert isinstance(clip, Waveform)
            assert clip.rate == (8_000 if row else 16_000)
            np.testing.assert_array_equal(clip.samples, SOUNDS[row])
    info = inspect(path, task="audio-classification")
    column = info.columns["audio"]
    assert (info.splits, column.kind) == ({"train": 4, "test": 2}, "audio")
    assert (column.rates, column.longest_seconds) == ([8_000, 16_000], 550 / 8_000)


def test_numbers_may_be_the_target(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"audio": FILES, "label": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]})
    assert target(read(path, task="audio-classification").splits["train"]) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([*FILES[:3], FILES[3][:-3], *FILES[4:]], "column 'audio', row 3 is cut off"),
        ([*FILES[:5], b"OggS"], "column 'audio', row 5 is Ogg (Vorbis or Opus), which is not read; save it as"),
        ([*FILES[:5], None], "row 5: there is no value"),
        ([*({"bytes": data} for data in FILES[:5]), {"bytes": None}], "row 5: there is no value"),
        ([{"path": "a.wav"}] * 6, "a struct without 'bytes'; store the WAV or FLAC itself"),
        (["a.wav"] * 6, "is of string; sound is the bytes of a WAV or FLAC file"),
        ([[0.0, 0.5]] * 6, "sound is the bytes of a WAV or FLAC file, which say its rate"),
    ],
)
def test_what_is_no_sound_is_refused_with_its_row(tmp_path: Path, stored: list[Any], words: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"audio": stored, "label": LABELS})
    assert words in refusal(path, task="audio-classification")


def test_a_small_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    silence = sound_file(np.zeros(100_000, np.float32), kind="FLAC")
    path = write_parquet(tmp_path / "a.parquet", {"audio": [silence] * 6, "label": LABELS})
    with pytest.raises(InvalidFile, match="the sound has more than 1,000,000 bytes"):
        inspect(path, task="audio-classification", max_unpacked_bytes=1_000_000)
