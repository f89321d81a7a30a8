"""Images whose EXIF says that they are turned are read as every viewer shows them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.formats import first_samples
from tests.unit.formats.files import encoded, inspect, pixels, read, some_images, write_parquet
from tests.unit.test_archives import zipped

UPRIGHT = np.zeros((6, 4, 3), np.uint8)
UPRIGHT[:3, :2], UPRIGHT[:3, 2:], UPRIGHT[3:, :2] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
"""Four quarters of different colours, taller than wide."""
STORED: dict[int, Callable[[Any], Any]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
"""By orientation of the EXIF standard (its tag 274), the stored pixels of an image that is to be shown upright."""


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT)))
    stored.save(buffer, format=kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    return buffer.getvalue()


def archive(folder: Path, images: list[bytes]) -> Path:
    path = folder / "a.zip"
    path.write_bytes(zipped([(f"{'ab'[row % 2]}/{row}.img", image) for row, image in enumerate(images)]))
    return path


def parquet(folder: Path, images: list[bytes]) -> Path:
    labels = [row % 2 for row in range(len(images))]
    column = [{"bytes": image, "path": None} for image in images]
    return write_parquet(folder / "a.parquet", {"image": column, "label": labels})


@pytest.mark.parametrize("write", [archive, parquet])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", STORED)
def test_an_image_is_turned_as_its_exif_says(tmp_path: Path, orientation: int, kind: str, write: Any) -> None:
    path = write(tmp_path, [turned(orientation, kind), turned(1, kind)])
    (first, second) = pixels(read(path).splits["train"]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(first.astype(int), UPRIGHT.astype(int), atol=12 if kind == "JPEG" else 0)
    np.testing.assert_allclose(second.astype(int), UPRIGHT.astype(int), atol=12 if kind == "JPEG" else 0)
    assert inspect(path).columns["image"].shape == [6, 4, 3]
    samples = first_samples(path, filename=path.name, task="image-classification", num_rows=1)
    assert samples[0].shape == (6, 4, 3)


def test_oblong_images_are_of_the_size_that_viewers_show(tmp_path: Path) -> None:
    path = archive(tmp_path, [turned(6, "JPEG"), turned(1, "JPEG"), turned(8, "PNG"), turned(3, "JPEG")])
    assert inspect(path).columns["image"].shape == [6, 4, 3]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12", b"Exif\0\0nothing of the kind", b"garbage"]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_metadata_that_are_broken_turn_nothing(tmp_path: Path, exif: bytes, kind: str) -> None:
    image = some_images(4, 6, 3)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, exif=exif)
    path = archive(tmp_path, [buffer.getvalue(), encoded(image, format=kind)])
    first, second = pixels(read(path).splits["train"])
    np.testing.assert_array_equal(first, second)


def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path) -> None:
    image = some_images(4, 6)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", exif=exif)
    path = archive(tmp_path, [buffer.getvalue(), encoded(image)])
    np.testing.assert_array_equal(pixels(read(path).splits["train"])[0, 0], image)
