"""Image files of any common kind as 8-bit pixels: grey, RGB, or RGBA where the file has transparency of its own.

The pixels are those that a viewer shows: turned as EXIF says, palettes and CMYK as RGB, of several frames or pages the first.
Invariant: 16 bits are read with 8, whatever the brightest pixel is, so that equal values of two files stay equal;
``ImageFacts.brightest`` tells how bright a file was, as a set of dark ones (12-bit values, say) would be black to a network.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from service.errors import InvalidFile
from service.formats.media.encoded import EncodedImage, pixels_digest

MIN_SIDE = 2
MAX_IMAGE_VALUES = 2**26
"""Values of one image: 8192x8192 pixels of one channel."""
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
FORMATS_READ = "a PNG, JPEG, WebP, GIF, BMP or TIFF"
SIXTEEN_BIT_WHITE = 65_535

Mode = Literal["L", "RGB", "RGBA"]
_MODES: dict[str, Mode] = {
    "1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
    "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA", "LA": "RGBA", "La": "RGBA",
}  # fmt: skip
MODE_OF_CHANNELS: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
# Pillow's decoders report a broken file by any of these.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, OverflowError, IndexError, KeyError, TypeError, struct.error)


@dataclass(frozen=True)
class ImageFacts:
    """What of a file its pixels no longer tell."""

    has_more_frames: bool = False
    """Whether it has frames or pages after the first, which are not read."""
    brightest: int | None = None
    """Of 16 bits, the greatest value, of colours by their upper 8 bits; None for 8 bits."""


def read_image(data: Any, *, place: str) -> tuple[Image.Image, ImageFacts]:
    """Decodes a file to an image of mode L, RGB or RGBA.

    Raises:
        InvalidFile: it is another format, broken, or far too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that are partly broken
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                if image.width * image.height > MAX_IMAGE_VALUES:
                    raise InvalidFile(f"{place} is {image.height}x{image.width} pixels; make the images smaller")
                # A phone's JPEG may hold a second picture, which no viewer shows.
                has_more_frames = image.format != "MPO" and bool(getattr(image, "is_animated", False))
                # Of colours with 16 bits Pillow keeps the upper 8, and only the way it unpacks them tells.
                is_deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
                return _eight_bit(_upright(image), has_more_frames=has_more_frames, is_deep=is_deep, place=place)
    except UnidentifiedImageError as error:
        raise InvalidFile(f"{place} is not {FORMATS_READ}; convert it or take it out") from error
    except _BROKEN as error:
        raise InvalidFile(f"{place} is a broken image file: {error}; save it again or take it out") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidFile(f"{place} declares far too many pixels: {error}") from error


def check_image(data: bytes, *, place: str) -> tuple[EncodedImage, ImageFacts]:
    """Decodes a file as :func:`read_image` does, and returns it as it is, with its sides. Raises InvalidFile."""
    image, facts = read_image(data, place=place)
    pixels = channels_first(np.asarray(image))
    channels, height, width = pixels.shape
    if min(height, width) < MIN_SIDE:
        raise InvalidFile(f"{place} is {height}x{width}: images have at least {MIN_SIDE}x{MIN_SIDE} pixels")
    return EncodedImage(data, height=height, width=width, channels=channels, digest=pixels_digest(pixels)), facts


def decode_as(image: EncodedImage, channels: int) -> NDArray[np.uint8]:
    """Decodes a file that was checked to (C, H, W) with so many channels: 1 for grey, 3 for RGB, 4 with transparency."""
    return channels_first(np.asarray(read_image_as(image.data, channels)))


def read_image_as(data: bytes, channels: int) -> Image.Image:
    """The same as an image of Pillow's."""
    image, _ = read_image(data, place="the image")
    mode = MODE_OF_CHANNELS[channels]
    return image if image.mode == mode else image.convert(mode)


def channels_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Transposes one decoded image, (H, W) or (H, W, C), to (C, H, W)."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _upright(image: Image.Image) -> Image.Image:
    try:
        image.load()  # the metadata of a PNG may follow its pixels
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except _BROKEN:
        image.load()  # of broken pixels it fails once more
        # Of an image that is whole but for its metadata, viewers show the pixels as they are stored.
        is_turned = False
    return ImageOps.exif_transpose(image) if is_turned else image


def _eight_bit(image: Image.Image, *, has_more_frames: bool, is_deep: bool, place: str) -> tuple[Image.Image, ImageFacts]:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image, dtype=np.uint32)
        facts = ImageFacts(has_more_frames, brightest=int(values.max()))
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)), facts
    mode = _MODES.get(image.mode)
    if mode is None:
        raise InvalidFile(f"{place} has pixels of kind {image.mode}; convert it to 8-bit grey, RGB or RGBA, or 16-bit grey")
    # Pillow copies an image also where its mode stays.
    made = image if image.mode == mode else image.convert(mode)
    brightest = 257 * int(np.asarray(made)[..., :3].max()) if is_deep and mode != "L" else None
    return made, ImageFacts(has_more_frames, brightest)
