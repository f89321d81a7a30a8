"""The networks that may stand in a spec, with their parameters and bounds.

``ARCHITECTURES`` is the whole list; the worker's builders carry one entry for each name in it, which a test compares.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from service.spec.strict import StrictModel

CifarResNetName = Literal["resnet20", "resnet56", "resnet110", "resnet8x4", "resnet32x4"]


class SmallCnn(StrictModel):
    """Two convolutions with batch norm and pooling, then two linear layers, for small images (4 pixels a side and more)."""

    name: Literal["small-cnn"]
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """Channels of the first convolution; the second has twice as many, the hidden layer four times."""


class CifarResNet(StrictModel):
    """A CIFAR ResNet of He et al. (2015), in the widths of the distillation literature (RepDistiller)."""

    name: CifarResNetName


class TransformersNetwork(StrictModel):
    """Any image classifier of ``transformers``, built from a config: channels, image size and labels come from the data."""

    name: Literal["transformers"]
    model_type: Annotated[str, Field(min_length=1, max_length=64)]
    config: dict[str, Any] = {}
    """Fields of that model's own config class, for instance ``{"hidden_size": 64, "num_hidden_layers": 2}``."""


Architecture = Annotated[SmallCnn | CifarResNet | TransformersNetwork, Field(discriminator="name")]


@dataclass(frozen=True)
class ArchitecturePage:
    """What ``GET /v1/architectures`` tells of an architecture beside its parameters."""

    spec: type[StrictModel]
    summary: str
    paper: str | None = None


_RESNETS = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385, section 4.2"
_WIDE_RESNETS = f"{_RESNETS}; four times as wide, as in Tian, Krishnan, Isola, 2020, arXiv:1910.10699"


def _cifar_resnet(layers: int, *, millions: float, wide: bool = False) -> ArchitecturePage:
    return ArchitecturePage(
        spec=CifarResNet,
        summary=f"A ResNet of {layers} layers{', four times as wide' if wide else ''} for images of 8x8 pixels and more, "
        f"made for CIFAR's 32x32; {millions} million parameters for 100 classes.",
        paper=_WIDE_RESNETS if wide else _RESNETS,
    )


ARCHITECTURES: dict[str, ArchitecturePage] = {
    "small-cnn": ArchitecturePage(
        spec=SmallCnn,
        summary="Two convolutions with batch norm and pooling, then two linear layers, for small images (4x4 and more).",
    ),
    "resnet20": _cifar_resnet(20, millions=0.28),
    "resnet56": _cifar_resnet(56, millions=0.86),
    "resnet110": _cifar_resnet(110, millions=1.74),
    "resnet8x4": _cifar_resnet(8, millions=1.23, wide=True),
    "resnet32x4": _cifar_resnet(32, millions=7.43, wide=True),
    "transformers": ArchitecturePage(
        spec=TransformersNetwork,
        summary="Any image classifier of the transformers library that takes any number of channels, built from its "
        "config and trained from the start: ViT, ResNet, ConvNeXT, Swin, MobileNet and more.",
        paper="Wolf et al.: Transformers, 2020, arXiv:1910.03771; each model_type has a paper of its own",
    ),
}
