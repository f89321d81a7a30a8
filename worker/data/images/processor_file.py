"""``preprocessor_config.json`` of an image network, as it is written: the image processor in front of it.

Invariant: ``AutoImageProcessor.from_pretrained`` loads it, with or without torchvision, and computes the same pixels as
:class:`PixelPreprocessing`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.data.images.canvas import RESAMPLING, Canvas

if TYPE_CHECKING:
    from worker.data.images.pixels import PixelPreprocessing

PROCESSOR_FILE = "preprocessor_config.json"
RANGE_FIELD = "pixel_range"
"""A field for the range of the pixels that the network was trained on, beside those that the library reads."""
BRIGHTEST_FIELD = "brightest_pixel"
"""A field for the greatest value of those pixels, which may be far below white."""


def write_processor_file(folder: Path, preprocessing: "PixelPreprocessing", *, input_shape: tuple[int, int, int]) -> None:
    """Writes the file. The processor resizes images of another size to the network's, and keeps images of that size unchanged.

    Where the data were padded, or fitted to a square by cutting the middle out, it does so too. An oblong that is cut out no
    processor has: it stretches to that.
    """
    channels, height, width = input_shape
    eight_bit = preprocessing.rescale_factor != 1.0
    document: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor",
        # The library resizes 8-bit PIL images, which would round floating-point pixels and have no mode for 2 or 4 channels.
        "do_resize": eight_bit and channels in (1, 3),
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": eight_bit,
        "rescale_factor": preprocessing.rescale_factor,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    if (canvas := preprocessing.canvas) is not None:
        document["resample"] = RESAMPLING[canvas.interpolation]
        if (size := _uncut_size(canvas)) and (height, width) == (canvas.height, canvas.width) and document["do_resize"]:
            document |= {
                "image_processor_type": "CLIPImageProcessor",
                "size": size,
                "do_center_crop": True,  # which pads what is smaller
                "crop_size": {"height": height, "width": width},
                "do_convert_rgb": channels == 3,
            }
    if (pixels := preprocessing.pixels) is not None:
        document[RANGE_FIELD] = [pixels.low, pixels.high]
        if pixels.brightest is not None:
            document[BRIGHTEST_FIELD] = pixels.brightest
    (folder / PROCESSOR_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _uncut_size(canvas: Canvas) -> dict[str, int] | None:
    """The size, as a processor has it, of images before they are cut or padded to the canvas; None for no such canvas."""
    if canvas.fit == "pad":
        return {"max_height": canvas.height, "max_width": canvas.width}
    return {"shortest_edge": canvas.height} if canvas.fit == "crop" and canvas.height == canvas.width else None
