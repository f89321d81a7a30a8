"""The inputs of a chunk in memory: files of images and sound decoded, anything else as it is."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.formats.chunk import ChunkInputs, RawInputs
from service.formats.media.audio import decode_audio
from service.formats.media.encoded import EncodedAudio, EncodedImage
from service.formats.media.image_extent import common_channels
from service.formats.media.image_file import decode_as


def decode(inputs: ChunkInputs) -> RawInputs:
    """Decodes files that a reader has checked; images, which are of one size, become one array (N, C, H, W)."""
    if isinstance(inputs, np.ndarray) or not inputs:
        return cast(RawInputs, inputs)
    match inputs[0]:
        case EncodedImage():
            images = cast(Sequence[EncodedImage], inputs)
            return decode_images(images, common_channels({image.channels for image in images}))
        case EncodedAudio():
            return [decode_audio(clip.data, place="the clip") for clip in cast(Sequence[EncodedAudio], inputs)]
        case _:
            return cast(RawInputs, inputs)


def decode_images(images: Sequence[EncodedImage], channels: int) -> NDArray[np.uint8]:
    """Decodes images of one size to (N, C, H, W) with so many channels."""
    made = np.empty((len(images), channels, images[0].height, images[0].width), dtype=np.uint8)
    for row, image in enumerate(images):
        made[row] = decode_as(image, channels)
    return made
