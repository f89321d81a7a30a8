"""``preprocessor_config.json`` of an image network: the image processor in front of it.

Invariant: ``AutoImageProcessor.from_pretrained`` loads what is written here, with or without torchvision, and computes the same
pixels as :class:`PixelPreprocessing`. A file from elsewhere is never interpreted: the library's processor is run.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor

from worker.data.images.pixel_range import EIGHT_BIT, UNIT, PixelRange
from worker.data.images.pixels import PixelPreprocessing
from worker.data.images.processor_file import BRIGHTEST_FIELD, PROCESSOR_FILE, RANGE_FIELD
from worker.data.images.processor_pixels import ProcessorPixels
from worker.models.errors import UnreadableNetwork

_ANY_SIZE = (64, 64)


def read_own_processor_config(folder: Path, *, num_channels: int) -> PixelPreprocessing:
    """Reads a file of :func:`worker.data.images.processor_file.write_processor_file`. Raises UnreadableNetwork."""
    path = folder / PROCESSOR_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        preprocessing = _preprocessing(
            mean=document["image_mean"], std=document["image_std"], factor=document["rescale_factor"], num_channels=num_channels
        )
        pixels = _read_range(document.get(RANGE_FIELD), document.get(BRIGHTEST_FIELD), factor=preprocessing.rescale_factor)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnreadableNetwork(f"{PROCESSOR_FILE} cannot be read: {type(error).__name__}: {error}") from error
    return replace(preprocessing, pixels=pixels)


def _read_range(written: Any, brightest: Any, *, factor: float) -> PixelRange | None:
    if written is None:  # an older export
        return None if factor == 1 else PixelRange(0.0, round(1 / factor))
    low, high = map(float, written)
    if not (math.isfinite(low) and low <= high < math.inf):
        raise ValueError(f"{RANGE_FIELD} is {written}")
    is_known = factor != 1 or PixelRange(low, high) in (UNIT, EIGHT_BIT)
    return PixelRange(low, high, is_measured=not is_known, brightest=None if brightest is None else float(brightest))


def read_processor_config(
    folder: Path, *, num_channels: int
) -> tuple[PixelPreprocessing | ProcessorPixels, tuple[int, int] | None]:
    """Reads any image processor's file, and its output size (height, width), if it has one.

    Raises:
        UnreadableNetwork: it is missing, or the library cannot load it.
    """
    if not (folder / PROCESSOR_FILE).is_file():
        raise UnreadableNetwork(
            f"{PROCESSOR_FILE} is missing: save the image processor beside the network, processor.save_pretrained(folder)"
        )
    try:
        # Results must not depend on whether torchvision, whose resizing differs, is installed on a worker.
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False, local_files_only=True)
        size = _output_size(processor)
        made = ProcessorPixels(processor, num_channels)
        if hasattr(processor, RANGE_FIELD):
            own = read_own_processor_config(folder, num_channels=num_channels)
            if _is_same(own, made, size or _ANY_SIZE):
                return own, size
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise UnreadableNetwork(f"{PROCESSOR_FILE} cannot be read: {type(error).__name__}: {error}") from error
    return made, size


def read_image_preprocessing(folder: Path, config: Any) -> tuple[PixelPreprocessing | ProcessorPixels, tuple[int, int, int]]:
    """Reads the image processor beside a network of that ``config``, and the shape of the images that the network reads.

    Raises:
        UnreadableNetwork: the file is missing or broken, or nothing says the images' size.
    """
    channels = int(getattr(config, "num_channels", 3))
    preprocessing, output_size = read_processor_config(folder, num_channels=channels)
    return preprocessing, (channels, *_image_size(config, output_size))


def _image_size(config: Any, output_size: tuple[int, int] | None) -> tuple[int, int]:
    # The processor's size comes first: a convolutional network's config repeats the default size of its class, whatever size the
    # network was trained on.
    if output_size is not None:
        return output_size
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise UnreadableNetwork("neither preprocessor_config.json (size) nor config.json (image_size) says the images' size")


def _is_same(own: PixelPreprocessing, made: ProcessorPixels, size: tuple[int, int]) -> bool:
    """Whether a file of :func:`worker.data.images.processor_file.write_processor_file` says what it said when it was written."""
    images = torch.arange(made.num_channels * math.prod(size), dtype=torch.float32).remainder(256)
    images = images.view(1, made.num_channels, *size)
    ours, theirs = own(images), replace(made, resized_as="stored")(images)
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def _preprocessing(*, mean: Any, std: Any, factor: Any, num_channels: int) -> PixelPreprocessing:
    means, stds = ([values] if isinstance(values, int | float) else list(values) for values in (mean, std))
    # One number stands for every channel.
    means, stds = (values * num_channels if len(values) == 1 else values for values in (means, stds))
    if len(means) != num_channels or len(stds) != num_channels:
        raise ValueError(f"image_mean and image_std have {len(means)} and {len(stds)} numbers for {num_channels} channels")
    if not all(value > 0 for value in [*stds, factor]):
        raise ValueError("image_std and rescale_factor must be above 0")
    return PixelPreprocessing(mean=tuple(map(float, means)), std=tuple(map(float, stds)), rescale_factor=float(factor))


def _output_size(processor: Any) -> tuple[int, int] | None:
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    size = dict(cropped or getattr(processor, "size", None) or {})
    edge = size.get("shortest_edge")
    height, width = size.get("height", edge), size.get("width", edge)
    return (int(height), int(width)) if height and width else None
