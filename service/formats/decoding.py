"""The inputs of a chunk in memory: files of images and sound decoded, anything else as it is."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from service.formats.audio import decode_audio
from service.formats.chunk import ChunkInputs, RawInputs
from service.formats.encoded import EncodedAudio, EncodedImage
from service.formats.image_file import channels_first, decode_image


def decode(inputs: ChunkInputs) -> RawInputs:
    """Decodes files that a reader has checked; images, which are of one size and mode, become one array (N, C, H, W)."""
    if isinstance(inputs, np.ndarray) or not inputs:
        return cast(RawInputs, inputs)
    match inputs[0]:
        case EncodedImage():
            images = cast(Sequence[EncodedImage], inputs)
            return np.stack([channels_first(decode_image(image.data, place="the image")) for image in images])
        case EncodedAudio():
            return [decode_audio(clip.data, place="the clip") for clip in cast(Sequence[EncodedAudio], inputs)]
        case _:
            return cast(RawInputs, inputs)
