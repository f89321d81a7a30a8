"""Photographs as people have them: parts of two real ones, of many sizes, formats, kinds of pixels and orientations."""

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from tests.unit.test_archives import zipped

CLASSES = ("china", "flower")


def photographs(count: int, *, seed: int = 0) -> list[tuple[str, bytes]]:
    """``count`` parts of each photograph, by their paths in an archive of class folders."""
    draws = np.random.default_rng(seed)
    made = []
    for name in CLASSES:
        whole = Image.open(io.BytesIO((files("sklearn.datasets.images") / f"{name}.jpg").read_bytes()))
        for number in range(count):
            width, height = (int(side) for side in draws.integers(40, 200, size=2))
            left, top = int(draws.integers(0, whole.width - width)), int(draws.integers(0, whole.height - height))
            part = whole.crop((left, top, left + width, top + height)).reduce(2)
            kind, data = _file(part, number)
            made.append((f"{name}/{number:03}.{kind}", data))
    return made


def photograph_archive(path: Path, *, count: int, more: Sequence[tuple[str, bytes]] = ()) -> Path:
    """A zip of :func:`photographs`, and of ``more`` files."""
    path.write_bytes(zipped([*photographs(count), *more]))
    return path


def _file(image: Image.Image, number: int) -> tuple[str, bytes]:
    match number % 8:
        case 0:
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = 6
            return "jpg", _saved(image.rotate(90, expand=True), "JPEG", exif=exif)
        case 1:
            return "png", _saved(image.convert("L"), "PNG")
        case 2:
            return "webp", _saved(image, "WEBP")
        case 3:
            clear = image.convert("RGBA")
            clear.putalpha(image.convert("L"))
            return "png", _saved(clear, "PNG")
        case 4:
            return "gif", _saved(image.convert("P"), "GIF", save_all=True, append_images=[image.rotate(180).convert("P")])
        case 5:
            return "jpg", _saved(image.convert("CMYK"), "JPEG")
        case 6:
            deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
            return "tif", _saved(Image.fromarray(deep), "TIFF")
        case _:
            return "jpeg", _saved(image, "JPEG")


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()
