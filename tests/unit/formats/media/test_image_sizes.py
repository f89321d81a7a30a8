"""Files of images of several sizes and kinds: read as files, described, told; broken ones refused, or left out and told."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidFile
from service.formats import EncodedImage, Waveform
from tests.unit.formats.files import encoded, inspect, pixels, read, refusal, some_images, target, write_parquet
from tests.unit.formats.sounds import some_sound, sound_file
from tests.unit.test_archives import zipped

Write = Callable[[Path, list[bytes]], Path]


def archive(folder: Path, images: list[bytes]) -> Path:
    path = folder / "a.zip"
    path.write_bytes(zipped([(f"{'ab'[row % 2]}/{row}.img", image) for row, image in enumerate(images)]))
    return path


def parquet(folder: Path, images: list[bytes]) -> Path:
    labels = [row % 2 for row in range(len(images))]
    return write_parquet(folder / "a.parquet", {"image": [{"bytes": image, "path": None} for image in images], "label": labels})


WRITE = pytest.mark.parametrize("write", [archive, parquet])
SIZES = [(8, 5), (8, 5), (9, 5), (30, 70), (4, 6), (8, 5)]
IMAGES = [encoded(some_images(*size, 3, seed=number)) for number, size in enumerate(SIZES)]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def told(path: Path, **options: Any) -> dict[str, str]:
    return {each.code: each.message for each in inspect(path, **options).warnings}


@WRITE
def test_images_of_several_sizes_stay_files_and_are_described(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, IMAGES)
    images = [image for image in read(path).splits["train"].inputs if isinstance(image, EncodedImage)]
    assert sorted((image.height, image.width) for image in images) == sorted(SIZES)
    column = inspect(path).columns["image"]
    assert column.shape is None
    assert column.sizes is not None
    assert column.sizes.model_dump() == {
        "least": [4, 5],
        "greatest": [30, 70],
        "most_common": [[8, 5, 3], *column.sizes.most_common[1:]],
        "channels": 3,
    }


@WRITE
def test_images_of_one_size_and_several_kinds_are_rgb(tmp_path: Path, write: Write) -> None:
    grey, clear = some_images(8, 5), some_images(8, 5, 4)
    path = write(tmp_path, [IMAGES[0], encoded(grey), encoded(clear), IMAGES[1]])
    images = pixels(read(path).splits["train"])
    assert images.shape == (4, 3, 8, 5)
    assert any(np.array_equal(image, np.broadcast_to(grey, (3, 8, 5))) for image in images)
    assert any(np.array_equal(image, clear[..., :3].transpose(2, 0, 1)) for image in images)
    assert inspect(path).columns["image"].shape == [8, 5, 3]
    assert told(path)["mixed_modes"] == (
        "the images are of several kinds, 1 grey, 2 RGB, 1 with transparency: all are read as RGB; transparency is left away, so "
        "that transparent pixels show the colour stored for them"
    )


@WRITE
def test_images_of_which_not_all_is_read_are_told(tmp_path: Path, write: Write) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "green")]
    moving = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    deep = saved(Image.fromarray(np.full((4, 6), 40_000, np.uint16)), "PNG")
    found = told(write(tmp_path, [moving, deep, saved(frames[0], "BMP")]))
    assert found["first_frame"] == "of 1 image with several frames or pages the first one is read"
    assert found["sixteen_bit"] == "1 image of 16 bits: read with 8: 0 is black, 65,535 white"


@WRITE
def test_16_bit_images_that_would_be_black_are_refused(tmp_path: Path, write: Write) -> None:
    of_12_bits = [saved(Image.fromarray(some_images(4, 6, seed=row).astype(np.uint16) * 16), "PNG") for row in range(3)]
    message = refusal(write(tmp_path, of_12_bits))
    assert message.startswith("the file has 3 images of 16 bits, and no pixel of them is above ")
    assert "multiply the pixels so that white is 65,535" in message


BROKEN = [IMAGES[0], IMAGES[1][:60], b"no image", IMAGES[3], IMAGES[4]]


@WRITE
def test_broken_images_are_refused_or_left_out_and_told(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, BROKEN)
    assert "is a broken image file" in refusal(path) or "is not a PNG" in refusal(path)
    info = inspect(path, skip_broken=True)
    assert info.splits == {"train": 3}
    (message,) = (each.message for each in info.warnings if each.code == "rows_skipped")
    assert message.startswith("2 rows are left out, as their files cannot be read: ")
    assert "is a broken image file" in message
    assert "is not a PNG" in message
    arrays = read(path, skip_broken=True)
    assert len(arrays.splits["train"].inputs) == len(target(arrays.splits["train"])) == 3
    assert info.class_counts["train"] == np.bincount(target(arrays.splits["train"]), minlength=2).tolist()


def test_a_split_of_broken_images_alone_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped([("test/a/1.png", b"x"), ("train/a/1.png", IMAGES[0]), ("train/b/1.png", IMAGES[1])]))
    assert inspect(path, skip_broken=True).splits == {"train": 2}
    assert set(read(path, skip_broken=True).splits) == {"train"}


@WRITE
def test_a_file_of_broken_images_alone_is_refused_with_the_first(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InvalidFile, match=r"no file of the input can be read: .* is not a PNG"):
        inspect(write(tmp_path, [b"x", b"y"]), skip_broken=True)


def test_broken_sound_is_left_out_too(tmp_path: Path) -> None:
    sound = sound_file(some_sound(400), subtype="FLOAT", rate=8_000)
    rows = [{"bytes": data, "path": None} for data in (sound, sound[:30], None, sound)]
    path = write_parquet(tmp_path / "a.parquet", {"audio": rows, "label": [0, 1, 0, 1]})
    info = inspect(path, task="audio-classification", skip_broken=True)
    assert info.splits == {"train": 2}
    (message,) = (each.message for each in info.warnings if each.code == "rows_skipped")
    assert "row 2: there is no value" in message
    arrays = read(path, task="audio-classification", skip_broken=True)
    assert [isinstance(clip, Waveform) for clip in arrays.splits["train"].inputs] == [True, True]
    assert target(arrays.splits["train"]) == [0, 1]
