"""The canvas of a job's images: what the spec says of it, else what the image processors of its given networks do."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.formats import DataArrays, EncodedImage, RawInputs
from service.formats.media.image_extent import common_channels
from service.formats.media.image_file import decode_as
from service.spec.canvas import Fit, ImageFit, Interpolation, no_canvas_message
from service.spec.warning_message import WarningMessage
from worker.data.disk.stored import StoredInputs
from worker.data.errors import NoCanvas, UnusableData
from worker.data.images.canvas import RESAMPLING, Canvas, fit_image, fit_images
from worker.data.images.processor_file import PROCESSOR_FILE

_OF_SPEC = "dataset.image.size"
_MOST_EXAMPLES = 8
_SLIGHT = 1e-4
_BY_NUMBER = {int(number): name for name, number in RESAMPLING.items()}
"""By Pillow's numbers, which processors' files have."""


@dataclass(frozen=True)
class ProcessorGeometry:
    """The size that an image processor makes of any image, before it cuts the middle out, and how."""

    height: int
    width: int
    fit: Fit
    interpolation: Interpolation
    folder: Path
    """Of the network."""


def read_geometry(folder: Path) -> ProcessorGeometry | None:
    """Reads the geometry of the image processor in a network's folder; None if there is none that resizes to one size."""
    try:
        document = json.loads((folder / PROCESSOR_FILE).read_text(encoding="utf-8"))
        return _geometry(document, folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # whoever loads the network says what is wrong with the file


def _geometry(document: Mapping[str, Any], folder: Path) -> ProcessorGeometry | None:
    size = document.get("size") or document.get("crop_size")
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size or {})
    interpolation = _BY_NUMBER.get(document.get("resample", 2), "bilinear")
    if edge := size.get("shortest_edge"):
        # Those of ConvNeXT resize to more than they cut out, by a share of their own, and stretch to a large size.
        share = document.get("crop_pct") if edge < 384 else None
        side = int(edge / share) if share else int(edge)
        return ProcessorGeometry(side, side, "crop", interpolation, folder)
    if size.get("max_height") and size.get("max_width"):
        return ProcessorGeometry(int(size["max_height"]), int(size["max_width"]), "pad", interpolation, folder)
    if size.get("height") and size.get("width"):
        return ProcessorGeometry(int(size["height"]), int(size["width"]), "stretch", interpolation, folder)
    return None


def choose_canvas(
    sizes: set[tuple[int, int]],
    channels: set[int],
    spec: ImageFit | None,
    given: Mapping[str, ProcessorGeometry],
    *,
    examples: Callable[[], Sequence[EncodedImage]],
) -> tuple[Canvas, str]:
    """Chooses the canvas of images of these sizes (height, width) and numbers of channels, and says whose size it is.

    ``given`` are the geometries of given networks by role. A canvas that a network's processor says is tried on ``examples``, a
    few of the images: what the processor makes of the canvas has to be what it makes of the whole image.

    Raises:
        NoCanvas: neither the spec nor a network says the size, or that network's processor does more than fit to one.
    """
    asked = spec or ImageFit()
    role, geometry = _largest(given)
    if (sides := asked.sides) is not None:
        return Canvas(*sides, common_channels(channels), asked.fit or "crop", asked.interpolation or "bilinear"), _OF_SPEC
    if geometry is None and len(sizes) == 1:
        (own,) = sizes
        return Canvas(*own, common_channels(channels), asked.fit or "crop", asked.interpolation or "bilinear"), "their own size"
    if geometry is None:
        least, greatest = ([pick(side) for side in zip(*sizes, strict=True)] for pick in (min, max))
        raise NoCanvas(no_canvas_message(least, greatest))
    fit, interpolation = asked.fit or geometry.fit, asked.interpolation or geometry.interpolation
    canvas = Canvas(geometry.height, geometry.width, common_channels(channels), fit, interpolation)
    if asked == ImageFit() and not _is_as_whole(geometry.folder, canvas, examples()):
        raise NoCanvas(
            f"the image processor of the {role} makes something else of images of several sizes than of ones that were fitted to "
            f"{canvas.height}x{canvas.width} pixels: name the size that all are fitted to, for instance "
            f"image: {{size: {canvas.height}}}"
        )
    return canvas, f"the size that the image processor of the {role} reads"


def _largest(given: Mapping[str, ProcessorGeometry]) -> tuple[str, ProcessorGeometry | None]:
    return max(given.items(), key=lambda item: item[1].height * item[1].width, default=("", None))


def _is_as_whole(folder: Path, canvas: Canvas, images: Sequence[EncodedImage]) -> bool:
    """Whether the processor in a network's folder makes the same of images on the canvas as of the images themselves."""
    from transformers import AutoImageProcessor  # its module imports seconds of others

    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False, local_files_only=True)
        for image in images:
            made = [
                processor(pixels, input_data_format="channels_first", return_tensors="np")["pixel_values"]
                for pixels in (_rgb(decode_as(image, canvas.channels)), _rgb(fit_image(image.data, canvas)))
            ]
            if made[0].shape != made[1].shape or not np.allclose(made[0], made[1], atol=_SLIGHT):
                return False
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError):
        return False  # whoever loads the network says what is wrong with it
    return True


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a processor of colours reads of an image (C, H, W): grey three times, without transparency."""
    return np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels[:3]


def files_of(arrays: DataArrays) -> list[EncodedImage]:
    """The images of all splits that are still files, of which a reader leaves all or none; of those on disk one of each size."""
    found: list[EncodedImage] = []
    for split in arrays.splits.values():
        found += split.inputs.of_each_size if isinstance(split.inputs, StoredInputs) else files_among(split.inputs)
    return found


def examples_of(images: Iterable[EncodedImage]) -> list[EncodedImage]:
    """A few images of different sizes."""
    by_size = {(image.height, image.width): image for image in images if image.data}
    return list(by_size.values())[:_MOST_EXAMPLES]


def files_among(inputs: RawInputs) -> Sequence[EncodedImage]:
    """The inputs, if they are files of images; else none."""
    if isinstance(inputs, StoredInputs):
        return inputs.files
    return [] if isinstance(inputs, np.ndarray) else [image for image in inputs if isinstance(image, EncodedImage)]


def on_canvas(inputs: RawInputs, canvas: Canvas, *, source: str) -> NDArray[Any]:
    """Fits files of images to the canvas: (N, C, H, W).

    Raises:
        UnusableData: they are no files, or have other kinds of pixels than it.
    """
    images = [] if isinstance(inputs, StoredInputs) else files_among(inputs)
    if len(images) != len(inputs):
        raise UnusableData(
            f"dataset.image fits files of images (PNG, JPEG, …), and those of {source} are arrays of one size: "
            "resize them there, and leave dataset.image out"
        )
    check_channels({image.channels for image in images}, canvas, source=source)
    made: NDArray[Any] = fit_images(images, canvas).numpy()
    return made


def check_channels(channels: set[int], canvas: Canvas, *, source: str) -> None:
    """Checks that images of these numbers of channels may stand on the canvas. Raises UnusableData."""
    common = common_channels(channels) if channels else canvas.channels
    if canvas.channels not in (3, common):
        raise UnusableData(f"{source} has images of {common} channels, the dataset of {canvas.channels}: store both alike")


def canvas_warning(canvas: Canvas, whose: str, images: Iterable[EncodedImage]) -> WarningMessage:
    """Tells what the images were made to be."""
    sizes = {(image.height, image.width) for image in images}
    how = {"crop": "their middle is cut out", "pad": "black is put around them", "stretch": "their proportions change"}
    shown = (
        " and ".join(f"{height}x{width}" for height, width in sorted(sizes)[:2]) if len(sizes) <= 2 else f"{len(sizes):,} sizes"
    )
    message = (
        f"the images, of {shown}, are resized ({canvas.interpolation}) to {canvas.height}x{canvas.width} pixels, {whose}; "
        f"{how[canvas.fit]}"
    )
    return WarningMessage(code="images_fitted", message=message)
