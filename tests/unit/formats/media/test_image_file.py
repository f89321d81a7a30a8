"""Files of every format and kind of pixels are read as viewers show them, beside Pillow's own reading of them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidFile
from service.formats.media.image_file import read_image
from tests.unit.formats.files import some_images

RGB = Image.fromarray(some_images(9, 7, 3))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_lossless_file_is_read_with_its_very_pixels(kind: str, options: dict[str, Any], mode: str) -> None:
    image = Image.fromarray(some_images(9, 7, 4)).convert(mode)
    if (kind, mode) in (("WEBP", "L"), ("BMP", "RGBA")):  # these formats do not have that
        image = image.convert("RGB")
    read, _ = read_image(saved(image, kind, **options), place="x")
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "kind", "becomes"),
    [
        ("P", "PNG", "RGB"),
        ("P", "GIF", "RGB"),
        ("1", "PNG", "L"),
        ("LA", "PNG", "RGBA"),
        ("CMYK", "JPEG", "RGB"),
        ("CMYK", "TIFF", "RGB"),
        ("YCbCr", "TIFF", "RGB"),
    ],
)
def test_other_kinds_of_pixels_become_grey_rgb_or_rgba(mode: str, kind: str, becomes: str) -> None:
    file = saved(RGB.convert(mode), kind)
    with Image.open(io.BytesIO(file)) as opened:
        expected = opened.convert(becomes)
    image, _ = read_image(file, place="x")
    assert image.mode == becomes
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_bits_and_tells_how_bright_it_is(kind: str) -> None:
    values = np.array([[0, 128, 129], [257, 4_095, 65_535], [1, 2, 65_406]], np.uint16)
    image, facts = read_image(saved(Image.fromarray(values), kind), place="x")
    np.testing.assert_array_equal(np.asarray(image), np.rint(values / 257).astype(np.uint8))
    assert facts.brightest == 65_535


def deep_png(values: Any) -> bytes:
    """A PNG of 16-bit colours (H, W, 3), which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_16_bit_colours_keep_their_upper_bits_and_tell_how_bright_they_are() -> None:
    values = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3) * 60
    image, facts = read_image(deep_png(values), place="x")
    np.testing.assert_array_equal(np.asarray(image), values >> 8)
    assert facts.brightest == 257 * (3_540 >> 8)
    _, of_eight = read_image(saved(RGB, "PNG"), place="x")
    assert of_eight.brightest is None


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read_and_the_others_are_told(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image, facts = read_image(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options), place="x")
    assert facts.has_more_frames
    np.testing.assert_array_equal(np.asarray(image), np.asarray(frames[0]))
    _, of_one = read_image(saved(frames[0], kind, **options), place="x")
    assert not of_one.has_more_frames


def test_the_second_picture_of_a_phone_is_no_frame() -> None:
    phone = saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)])
    image, facts = read_image(phone, place="x")
    assert (image.size, facts.has_more_frames) == ((7, 9), False)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_half_a_file_is_broken(kind: str) -> None:
    file = saved(Image.fromarray(some_images(64, 64, 3)), kind)
    with pytest.raises(InvalidFile, match=r"^row 3 is a broken image file: .*; save it again or take it out$"):
        read_image(file[: len(file) // 2], place="row 3")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"%PDF-1.4", "is not a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        (saved(RGB, "JPEG2000"), "is not a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "has pixels of kind F; convert it to"),
        (saved(RGB.convert("LAB"), "TIFF"), "has pixels of kind LAB; convert it to"),
    ],
)
def test_other_files_are_refused_with_the_remedy(file: bytes, message: str) -> None:
    with pytest.raises(InvalidFile, match=f"^row 0 {message}"):
        read_image(file, place="row 0")
