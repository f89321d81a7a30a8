"""Image classifiers behind their own image processors."""

import io
import json
import shutil
import zipfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES, get_image_processor_class_from_name

from service.spec.tasks import TaskName
from service.spec.transformers_fit import classifiers
from tests.truth.service_path import compared, service_outputs
from tests.truth.subject import Outcome, Settings, Subject
from tests.unit.worker.models.test_build import tiny
from worker.models import build_network
from worker.tasks import TASKS

TASK: TaskName = "image-classification"
SIDE = 64
CLASSES = ["0", "1", "2"]
NUM_IMAGES = 3
SPLITS = ("train", "validation", "test")
TURNED = 6
"""EXIF's orientation of a camera that was held upright."""
HALF = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.4, 0.3]}
SQUARE = {"height": SIDE, "width": SIDE}

SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    "resize": {
        "shortest edge": {"do_resize": True, "size": {"shortest_edge": SIDE}},
        "height and width": {"do_resize": True, "size": SQUARE},
        "nearest": {"do_resize": True, "size": SQUARE, "resample": 0},
        "off": {"do_resize": False},
    },
    "crop": {
        "on": {"do_center_crop": True, "crop_size": SQUARE},
        "off": {"do_center_crop": False},
        "by crop_pct": {"do_center_crop": True, "crop_size": SQUARE, "crop_pct": 0.8},
    },
    "rescale": {
        "by 1/255": {"do_rescale": True},
        "by 1/127.5": {"do_rescale": True, "rescale_factor": 1 / 127.5},
        "with offset": {"do_rescale": True, "rescale_factor": 1 / 127.5, "rescale_offset": True},
        "off": {"do_rescale": False},
    },
    "normalize": {
        "by its class": {},
        "by mean and std": {"do_normalize": True, **HALF},
        "off": {"do_normalize": False, "include_top": False},
        "twice": {"do_normalize": True, "include_top": True, **HALF},
    },
    "channels": {"as its class": {}, "flipped": {"do_flip_channel_order": True}, "not flipped": {"do_flip_channel_order": False}},
    "convert to RGB": {"as its class": {}, "on": {"do_convert_rgb": True}, "off": {"do_convert_rgb": False}},
    "pad": {"off": {"do_pad": False}, "on": {"do_pad": True, "pad_size": SQUARE}},
}
"""What each value of a switch sets in the processor."""
RAW = ["uint8", "floats 0 to 1", "floats 0 to 255", "grey", "RGBA", "turned JPEG", "files of several sizes"]
SIZES = {"larger": (80, 72), "smaller": (40, 48), "its own": (SIDE, SIDE)}
LABELS = ["in order", "reversed"]


def run(model_type: str, settings: Settings, folder: Path) -> Outcome:
    """Compares one network."""
    network = folder / "network"
    _save(model_type, settings, network)
    height, width = SIZES[settings["size of the images"]]
    images = _draw(settings["images"], height, width)
    data = _write(settings["images"], images, folder)
    return compared(
        lambda: service_outputs(TASK, network, data), lambda: _library_outputs(model_type, network, images, settings), CLASSES
    )


def _save(model_type: str, settings: Settings, folder: Path) -> None:
    shutil.copytree(_network(model_type), folder)
    config = json.loads((folder / "config.json").read_text())
    names = CLASSES if settings["labels"] == "in order" else CLASSES[::-1]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    processor: dict[str, Any] = {}
    for switch, values in SWITCHES.items():
        processor |= values[settings[switch]]
    known = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or IMAGE_PROCESSOR_MAPPING_NAMES["dinov2"]
    get_image_processor_class_from_name(known["pil"])(**processor).save_pretrained(folder)


@cache
def _network(model_type: str) -> Path:
    """A folder with a network that tells images apart, made once for each process."""
    folder = Path(mkdtemp())
    torch.manual_seed(0)
    network: Any = build_network(
        tiny(model_type), kind=TASKS["image-classification"].network, input_shape=(3, SIDE, SIDE), num_outputs=len(CLASSES)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                module.momentum = 1.0
        network.train()(torch.randn(8, 3, SIDE, SIDE))
    network.model.save_pretrained(folder)
    return folder


def _draw(kind: str, height: int, width: int) -> list[Image.Image]:
    """Images as a viewer shows them: smooth, so that resizing keeps what they show, and nowhere black or white.

    On a patch of one value a network with layer norm magnifies what is left of it, which is rounding alone.
    """
    mode = {"grey": "L", "RGBA": "RGBA"}.get(kind, "RGB")
    random = np.random.default_rng(0)
    colours = random.integers(60, 190, size=(NUM_IMAGES, 1, 1, len(mode)))
    draws = (colours + random.integers(-40, 40, size=(NUM_IMAGES, 6, 6, len(mode)))).astype(np.uint8)
    more = [(0, 0), (7, 40), (33, 2)] if kind == "files of several sizes" else [(0, 0)] * NUM_IMAGES
    return [
        Image.fromarray(each.squeeze(), mode).resize((width + wider, height + higher), Image.Resampling.BICUBIC)
        for each, (higher, wider) in zip(draws, more, strict=True)
    ]


def _write(kind: str, images: list[Image.Image], folder: Path) -> Path:
    """A dataset of these images, each one class, the same in every split."""
    if kind.startswith(("uint8", "floats")):
        arrays: NDArray[Any] = np.stack([np.asarray(image) for image in images])
        if kind != "uint8":
            arrays = arrays.astype(np.float32) / (255 if kind == "floats 0 to 1" else 1)
        path = folder / "data.npz"
        columns: dict[str, Any] = {"image": arrays, "label": np.arange(NUM_IMAGES)}
        np.savez(path, **{f"{split}_{name}": values for split in SPLITS for name, values in columns.items()})
        return path
    path = folder / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in enumerate(images):
            data = _jpeg(image) if kind == "turned JPEG" else _png(image)
            for split in SPLITS:
                archive.writestr(f"{split}/{index}/one.{'jpg' if kind == 'turned JPEG' else 'png'}", data)
    return path


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    """The image as the camera's sensor saw it, with the orientation in which viewers show it."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = TURNED
    image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def _library_outputs(model_type: str, folder: Path, images: list[Image.Image], settings: Settings) -> dict[str, Tensor]:
    """The outputs (N,) of each class, as the library computes them of the images that the files show."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    if settings["images"] == "turned JPEG":
        images = [ImageOps.exif_transpose(Image.open(io.BytesIO(_jpeg(image)))) for image in images]
    pixels: list[NDArray[Any]] = [np.atleast_3d(np.asarray(image)) for image in images]
    # Its mean is that of floats, or nothing says what it reads and it gets what there is.
    centres = processor.do_normalize and not model_type.startswith("mobilevit")
    if not processor.do_rescale and (centres or settings["images"] == "floats 0 to 1"):
        pixels = [each.astype(np.float32) / 255 for each in pixels]
    # What it does not convert by itself it cannot read.
    options = {"do_convert_rgb": True} if settings["images"] in ("grey", "RGBA") else {}
    inputs = processor(pixels, return_tensors="pt", input_data_format="channels_last", **options)["pixel_values"]
    with torch.no_grad():
        outputs = _library_model(model_type)(pixel_values=inputs.to(torch.float32)).logits
    names = AutoConfig.from_pretrained(folder).id2label
    return {names[index]: outputs[:, index] for index in range(len(CLASSES))}


@cache
def _library_model(model_type: str) -> Any:
    return AutoModelForImageClassification.from_pretrained(_network(model_type)).eval()


IMAGES = Subject(
    name=TASK,
    model_types=classifiers(TASK),
    switches={
        "images": RAW,
        "size of the images": list(SIZES),
        **{switch: list(values) for switch, values in SWITCHES.items()},
        "labels": LABELS,
    },
    run=run,
)
