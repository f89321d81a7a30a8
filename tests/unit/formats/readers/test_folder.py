"""Archives of class folders as datasets: the layouts that are taken, and what is refused with its path."""

import gzip
import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidFile
from service.formats import Waveform, first_samples, inspect_dataset, read_dataset
from service.formats.readers.layout import read_layout
from service.spec.tasks import TaskName
from tests.unit.formats.files import encoded, some_images
from tests.unit.formats.sounds import some_sound, sound_file
from tests.unit.test_archives import Files, tarred, zipped

IMAGES = some_images(6, 8, 5, 3)
PNGS = [encoded(image) for image in IMAGES]
SOUNDS = [some_sound(400 + 100 * index, seed=index) for index in range(4)]
WAVS = [sound_file(sound, subtype="FLOAT", rate=rate) for sound, rate in zip(SOUNDS, (8_000, 8_000, 16_000, 8_000), strict=True)]
CATS_AND_DOGS: Files = [("dog/2.png", PNGS[3]), ("cat/1.png", PNGS[0]), ("dog/1.png", PNGS[2]), ("cat/2.png", PNGS[1])]
WITH_SPLITS: Files = [
    ("train/cat/1.png", PNGS[0]),
    ("train/dog/1.png", PNGS[1]),
    ("test/dog/1.png", PNGS[2]),
    ("val/cat/x.png", PNGS[3]),
]


def packed(tmp_path: Path, files: Files, *, pack: Any = zipped) -> Path:
    path = tmp_path / "upload.zip"
    path.write_bytes(pack(files))
    return path


def refusal(tmp_path: Path, files: Files, *, task: TaskName = "image-classification", **columns: Any) -> str:
    with pytest.raises(InvalidFile) as caught:
        inspect_dataset(packed(tmp_path, files), filename="upload.zip", task=task, **columns)
    return caught.value.detail


def images_of(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[str] | None]:
    arrays = read_dataset(path, task="image-classification", target_columns=["label"])
    inputs = {name: split.inputs for name, split in arrays.splits.items()}
    return inputs, {name: split.targets["label"] for name, split in arrays.splits.items()}, arrays.classes["label"]


# ---------------------------------------------------------------- what is taken


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, compress=gzip.compress)])
def test_class_folders_are_one_split_in_the_order_of_their_paths(tmp_path: Path, pack: Any) -> None:
    path = packed(tmp_path, CATS_AND_DOGS, pack=pack)
    inputs, labels, classes = images_of(path)
    assert (list(inputs), classes) == (["train"], ["cat", "dog"])
    np.testing.assert_array_equal(inputs["train"], IMAGES[:4].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels["train"], [0, 0, 1, 1])
    info = inspect_dataset(path, filename="upload.zip", task="image-classification")
    assert (info.splits, info.class_counts) == ({"train": 4}, {"train": [2, 2]})
    assert (info.columns["image"].dtype, info.columns["image"].shape) == ("uint8", [8, 5, 3])


def test_split_folders_are_splits(tmp_path: Path) -> None:
    inputs, labels, classes = images_of(packed(tmp_path, WITH_SPLITS))
    assert classes == ["cat", "dog"]
    assert {name: (len(inputs[name]), labels[name].tolist()) for name in inputs} == {
        "test": (1, [1]),
        "train": (2, [0, 1]),
        "val": (1, [0]),
    }


@pytest.mark.parametrize("files", [CATS_AND_DOGS, WITH_SPLITS, WITH_SPLITS[:2]], ids=["classes", "splits", "one split"])
def test_folders_around_them_all_hidden_files_and_those_of_macos_say_nothing(tmp_path: Path, files: Files) -> None:
    plain = images_of(packed(tmp_path, files))
    around = [(f"my data/v1/{name}", content) for name, content in files]
    more = [("my data/.DS_Store", b"x"), ("__MACOSX/my data/v1/._cat", b"x"), ("my data/v1/.git/config", b"x")]
    wrapped = images_of(packed(tmp_path, [*more, *around]))
    assert (plain[0].keys(), plain[2]) == (wrapped[0].keys(), wrapped[2])
    for split, images in plain[0].items():
        np.testing.assert_array_equal(images, wrapped[0][split])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    files = [("train/1.png", PNGS[0]), ("bus/1.png", PNGS[1])]
    assert images_of(packed(tmp_path, files))[2] == ["bus", "train"]


def test_grey_images_and_jpegs_are_read(tmp_path: Path) -> None:
    grey = some_images(2, 4, 4)
    inputs, _, _ = images_of(packed(tmp_path, [("a/1.png", encoded(grey[0])), ("b/1.jpg", encoded(grey[1], format="JPEG"))]))
    assert inputs["train"].shape == (2, 1, 4, 4)
    np.testing.assert_array_equal(inputs["train"][0, 0], grey[0])


def test_sound_keeps_its_lengths_and_rates(tmp_path: Path) -> None:
    files = [(f"{name}/{index}.wav", WAVS[index]) for index, name in enumerate(["no", "no", "yes", "yes"])]
    path = packed(tmp_path, files)
    arrays = read_dataset(path, task="audio-classification", target_columns=["label"])
    clips = arrays.splits["train"].inputs
    assert arrays.classes == {"label": ["no", "yes"]}
    for clip, sound, rate in zip(clips, SOUNDS, (8_000, 8_000, 16_000, 8_000), strict=True):
        assert isinstance(clip, Waveform)
        assert clip.rate == rate
        np.testing.assert_array_equal(clip.samples, sound)
    column = inspect_dataset(path, filename="upload.zip", task="audio-classification").columns["audio"]
    assert (column.kind, column.rates, column.longest_seconds) == ("audio", [8_000, 16_000], 700 / 8_000)


def test_the_first_rows_can_be_looked_at(tmp_path: Path) -> None:
    path = packed(tmp_path, CATS_AND_DOGS)
    samples = first_samples(path, filename="upload.zip", task="image-classification", num_rows=3)
    assert [(sample.row, sample.label, sample.shape) for sample in samples] == [
        (0, "cat", (8, 5, 3)),
        (1, "cat", (8, 5, 3)),
        (2, "dog", (8, 5, 3)),
    ]


def test_a_split_is_read_in_pieces_that_can_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = images_of(packed(tmp_path, WITH_SPLITS))
    monkeypatch.setattr("service.formats.readers.folder.CHUNK_BYTES", 1)
    pieces = images_of(packed(tmp_path, WITH_SPLITS))
    for split, images in whole[0].items():
        np.testing.assert_array_equal(images, pieces[0][split])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "holds no file; an archive holds class folders"),
        (["cat/1.png", "dog/1.png", "labels.csv"], "'labels.csv' lies beside the class folders"),
        (["d/cat/1.png", "d/dog/1.png", "d/README"], "'d/README' lies beside the class folders"),
        (["cat/1.png", "cat/small/1.png", "dog/1.png"], "'cat/small/1.png' lies in a folder inside a class folder"),
        (["animal/cat/1.png", "plant/fern/1.png"], "below 'animal', 'plant', which would be splits, and none is 'train'"),
        (["test/cat/1.png", "test/dog/1.png"], "none is 'train'"),
        (["train/cat/1.png", "train/dog/1.png", "te st/cat/1.png"], "'te st' is no name of a split"),
        (["a/b/c/d.png", "a/b/e/d.png", "f/b/c/d.png"], "'a/b/c/d.png' is in no class folder"),
    ],
)
def test_a_layout_that_says_no_class_of_each_file_is_refused(paths: list[str], words: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read_layout(sorted(map(PurePosixPath, paths), key=lambda path: path.parts))
    assert words in caught.value.detail


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (("dog/x.png", PNGS[4][:60]), "'dog/x.png' is a broken image file"),
        (("dog/x.png", b""), "'dog/x.png' is not a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        (("dog/notes.txt", b"bites"), "'dog/notes.txt' is not a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        (("cat/0.png", encoded(some_images(1, 5))), "'cat/0.png' is 1x5: images have at least 2x2 pixels"),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_its_path(tmp_path: Path, file: tuple[str, bytes], words: str) -> None:
    assert words in refusal(tmp_path, [*CATS_AND_DOGS, file])


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (("yes/x.wav", WAVS[0][:-3]), "'yes/x.wav' is cut off"),
        (("yes/x.mp3", b"ID3" + bytes(50)), "'yes/x.mp3' is MP3, which is not read; save it as 16-bit WAV or as FLAC"),
        (("yes/x.png", PNGS[0]), "'yes/x.png' is neither a WAV nor a FLAC"),
    ],
)
def test_a_file_that_is_no_sound_is_refused_with_its_path(tmp_path: Path, file: tuple[str, bytes], words: str) -> None:
    files = [("no/1.wav", WAVS[0]), ("yes/1.wav", WAVS[1]), file]
    assert words in refusal(tmp_path, files, task="audio-classification")


def test_many_copies_of_one_large_image_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    png = encoded(np.zeros((1000, 1000), np.uint8))
    files = [(f"{name}/{number}.png", png) for name in "ab" for number in range(60)]
    assert "at most 100,000,000 may be" in refusal(tmp_path, files, max_unpacked_bytes=100_000_000)


def test_sound_of_which_there_is_too_much_is_refused(tmp_path: Path) -> None:
    silence = sound_file(np.zeros(100_000, np.float32), kind="FLAC")
    files = [(f"{name}/{number}.flac", silence) for name in "ab" for number in range(3)]
    assert "more than 1,000,000 bytes" in refusal(tmp_path, files, task="audio-classification", max_unpacked_bytes=1_000_000)


def test_an_archive_has_its_own_columns_alone(tmp_path: Path) -> None:
    assert "has the columns 'image' and 'label'" in refusal(tmp_path, CATS_AND_DOGS, target_columns=["kind"])
    assert "has the columns 'image' and 'label'" in refusal(tmp_path, CATS_AND_DOGS, input_column="photo")
    assert "which holds no text" in refusal(tmp_path, CATS_AND_DOGS, task="text-classification")


def test_an_npz_is_no_archive_of_folders(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, image=some_images(4, 3, 3), label=np.arange(4) % 2)
    path = tmp_path / "upload.zip"
    path.write_bytes(buffer.getvalue())
    assert inspect_dataset(path, filename="upload.zip", task="image-classification").splits == {"train": 4}
    with pytest.raises(InvalidFile, match=r"npz.*audio"):
        inspect_dataset(path, filename="upload.zip", task="audio-classification")
