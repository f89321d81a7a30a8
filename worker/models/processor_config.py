"""``preprocessor_config.json`` of an image network: the image processor in front of it.

Invariant: ``AutoImageProcessor.from_pretrained`` loads the file, with or without torchvision, and computes the same pixels as
:class:`PixelPreprocessing`.
"""

import json
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from worker.data.pixels import PixelPreprocessing
from worker.models.errors import UnreadableNetwork

PROCESSOR_FILE = "preprocessor_config.json"


def write_processor_config(folder: Path, preprocessing: PixelPreprocessing, *, input_shape: tuple[int, int, int]) -> None:
    """Writes the file. The processor resizes images of another size to the network's, and keeps images of that size unchanged."""
    channels, height, width = input_shape
    eight_bit = preprocessing.rescale_factor != 1.0
    document = {
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
    (folder / PROCESSOR_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_own_processor_config(folder: Path, *, num_channels: int) -> PixelPreprocessing:
    """Reads a file of :func:`write_processor_config`. Raises UnreadableNetwork."""
    path = folder / PROCESSOR_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        preprocessing = _preprocessing(
            mean=document["image_mean"], std=document["image_std"], factor=document["rescale_factor"], num_channels=num_channels
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnreadableNetwork(f"{PROCESSOR_FILE} cannot be read: {type(error).__name__}: {error}") from error
    return preprocessing


def read_processor_config(folder: Path, *, num_channels: int) -> tuple[PixelPreprocessing, tuple[int, int] | None]:
    """Reads any image processor's file, with the defaults of its class, and its output size (height, width), if it has one."""
    if not (folder / PROCESSOR_FILE).is_file():
        raise UnreadableNetwork(
            f"{PROCESSOR_FILE} is missing: save the image processor beside the network, processor.save_pretrained(folder)"
        )
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        rescaled, normalised = getattr(processor, "do_rescale", True), getattr(processor, "do_normalize", True)
        preprocessing = _preprocessing(
            mean=processor.image_mean if normalised else [0.0],
            std=processor.image_std if normalised else [1.0],
            factor=processor.rescale_factor if rescaled else 1.0,
            num_channels=num_channels,
        )
        return preprocessing, _output_size(processor)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise UnreadableNetwork(f"{PROCESSOR_FILE} cannot be read: {type(error).__name__}: {error}") from error


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
