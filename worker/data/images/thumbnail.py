"""Small pictures of stored images, for people."""

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from worker.data.images.pixel_range import PixelRange

THUMBNAIL_SIDE = 96
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def thumbnail(stored: Tensor, pixel_range: PixelRange) -> str | None:
    """A PNG data URL of an image (C, H, W) of stored values; None for a number of channels that has no colours."""
    if (mode := _MODES.get(len(stored))) is None:
        return None
    black, white = pixel_range.low, pixel_range.high
    values = (stored.to(torch.float32) - black) / ((white - black) or 1.0) * 255
    pixels = values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    written = io.BytesIO()
    image.save(written, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
