"""Any image classifier of ``transformers`` as a plain module from images to logits. B batch, C channels, H height, W width.

Invariant: channels, image size and labels come from the data; no code and no weights come from outside the library and the
folder.
"""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification

from service.spec.architectures import TransformersNetwork as TransformersArchitecture
from service.spec.transformers_fit import config_fields
from worker.models.errors import UnfitArchitecture

LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""The library has no error of its own for a config that makes no network: whatever its constructors run into comes out."""


class TransformersNetwork(nn.Module):
    """Wraps ``model``, which stays what the library made: its ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def build_transformers_network(
    architecture: TransformersArchitecture, *, input_shape: tuple[int, int, int], num_classes: int
) -> TransformersNetwork:
    """The network that the spec describes, freshly initialised from torch's global generator.

    Raises:
        UnfitArchitecture: the library refuses the config, or the network cannot read such an image.
    """
    channels, height, width = input_shape
    # An empty list of architectures: the library reads it where a model type has several image classifiers, and takes the first.
    fields = {**architecture.config, "num_channels": channels, "num_labels": num_classes, "architectures": []}
    image_size = config_fields(architecture.model_type).get("image_size")
    if image_size is not None:
        fields["image_size"] = height if height == width and "integer" in image_size["types"] else [height, width]
    try:
        config = AutoConfig.for_model(architecture.model_type, **fields)
        network = TransformersNetwork(AutoModelForImageClassification.from_config(config, trust_remote_code=False))
        _try(network, input_shape=input_shape, num_classes=num_classes)
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()}"
        raise UnfitArchitecture(
            f"transformers cannot build {architecture.model_type!r} with {architecture.config} for images of "
            f"{height}x{width} pixels and {channels} channels: {reason[:500]}"
        ) from error
    network.train()
    return network


def _try(network: nn.Module, *, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """One forward of two blank images: a kernel wider than the image, or a window that does not fit, is refused nowhere else."""
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        logits = network(torch.zeros(2, *input_shape))
    if logits.shape != (2, num_classes):
        raise ValueError(f"the logits have shape {tuple(logits.shape[1:])}, not ({num_classes},)")
