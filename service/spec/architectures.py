"""The networks that may stand in a spec, with their parameters and bounds.

``ARCHITECTURES`` is the whole list; the worker's builders carry one entry for each name in it, which a test compares.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from service.spec.strict import StrictModel

CifarResNetName = Literal["resnet20", "resnet56", "resnet110", "resnet8x4", "resnet32x4"]
WideResNetName = Literal["wrn-16-2", "wrn-40-1", "wrn-40-2"]
VggName = Literal["vgg8", "vgg13"]
ShuffleNetName = Literal["shufflenetv1", "shufflenetv2"]


class SmallCnn(StrictModel):
    """Two convolutions with batch norm and pooling, then two linear layers, for small images (4 pixels a side and more)."""

    name: Literal["small-cnn"]
    """Which architecture this is."""
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """Channels of the first convolution; the second has twice as many, the hidden layer four times."""


class CifarResNet(StrictModel):
    """A CIFAR ResNet of He et al. (2015), in the widths of the distillation literature (RepDistiller)."""

    name: CifarResNetName
    """Its layers; with ``x4`` four times as wide."""


class WideResNet(StrictModel):
    """A wide residual network of Zagoruyko and Komodakis (2016), for CIFAR."""

    name: WideResNetName
    """Its layers, then the widening factor."""


class Vgg(StrictModel):
    """A VGG network of Simonyan and Zisserman (2014) for CIFAR: with batch norm, and one linear layer in place of three.

    Images too small for all its halvings skip the first of them.
    """

    name: VggName
    """Its layers."""


class MobileNet(StrictModel):
    """The MobileNetV2 of the distillation literature: Sandler et al. (2018), half as wide, for CIFAR (RepDistiller).

    Images too small for all its halvings skip the first of them.
    """

    name: Literal["mobilenetv2"]
    """Which architecture this is."""


class ShuffleNet(StrictModel):
    """A ShuffleNet of Zhang et al. (2017) or a ShuffleNet V2 of Ma et al. (2018), for CIFAR (RepDistiller).

    Images too small for all its halvings skip the first of them.
    """

    name: ShuffleNetName
    """Its version."""


class TransformersNetwork(StrictModel):
    """A network of ``transformers`` for the job's task, built from a config; what the data decide comes from the data."""

    name: Literal["transformers"]
    """Which architecture this is."""
    model_type: Annotated[str, Field(min_length=1, max_length=64)]
    """The model's name in the library, such as ``vit`` or ``resnet``."""
    config: dict[str, Any] = {}
    """Fields of that model's own config class, for instance ``{"hidden_size": 64, "num_hidden_layers": 2}``."""


Architecture = Annotated[
    SmallCnn | CifarResNet | WideResNet | Vgg | MobileNet | ShuffleNet | TransformersNetwork, Field(discriminator="name")
]


@dataclass(frozen=True)
class ArchitecturePage:
    """The entry of an architecture in ``GET /v1/architectures``, beside its parameters."""

    spec: type[StrictModel]
    summary: str
    paper: str | None = None


_RESNETS = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385, section 4.2"
_WIDE_RESNETS = f"{_RESNETS}; four times as wide, as in Tian, Krishnan, Isola, 2020, arXiv:1910.10699"
_WRN = "Zagoruyko, Komodakis: Wide Residual Networks, 2016, arXiv:1605.07146"
_VGG = "Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, arXiv:1409.1556"
_MOBILENET = (
    "Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv:1801.04381"
)
_SHUFFLENET_V1 = "Zhang, Zhou, Lin, Sun: ShuffleNet: An Extremely Efficient CNN for Mobile Devices, 2017, arXiv:1707.01083"
_SHUFFLENET_V2 = "Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Design, 2018, arXiv:1807.11164"


def _cifar_network(spec: type[StrictModel], what: str, *, millions: float, paper: str) -> ArchitecturePage:
    return ArchitecturePage(
        spec=spec,
        summary=f"{what} for images of 8x8 pixels and more, made for CIFAR's 32x32; "
        f"{millions:.2f} million parameters for 100 classes.",
        paper=paper,
    )


def _cifar_resnet(layers: int, *, millions: float, wide: bool = False) -> ArchitecturePage:
    what = f"A ResNet of {layers} layers{', four times as wide,' if wide else ''}"
    return _cifar_network(CifarResNet, what, millions=millions, paper=_WIDE_RESNETS if wide else _RESNETS)


def _wide_resnet(layers: int, *, widening: int, millions: float) -> ArchitecturePage:
    what = f"A wide residual network of {layers} layers with widening factor {widening}"
    return _cifar_network(WideResNet, what, millions=millions, paper=_WRN)


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
    "wrn-16-2": _wide_resnet(16, widening=2, millions=0.70),
    "wrn-40-1": _wide_resnet(40, widening=1, millions=0.57),
    "wrn-40-2": _wide_resnet(40, widening=2, millions=2.26),
    "vgg8": _cifar_network(Vgg, "A VGG of 8 layers with batch norm", millions=3.97, paper=f"{_VGG}, with fewer layers"),
    "vgg13": _cifar_network(Vgg, "A VGG with batch norm", millions=9.46, paper=f"{_VGG}, configuration B"),
    "mobilenetv2": _cifar_network(MobileNet, "MobileNetV2 at half width, expansion 6,", millions=0.81, paper=_MOBILENET),
    "shufflenetv1": _cifar_network(ShuffleNet, "ShuffleNet with three groups", millions=0.95, paper=_SHUFFLENET_V1),
    "shufflenetv2": _cifar_network(ShuffleNet, "ShuffleNet V2 at width 1", millions=1.36, paper=_SHUFFLENET_V2),
    "transformers": ArchitecturePage(
        spec=TransformersNetwork,
        summary="A network of the transformers library for the job's task, built from its config and trained from the start: "
        "classifiers of images with any number of channels (ViT, ResNet, Swin and more), of texts and of sound, "
        "causal language models.",
        paper="Wolf et al.: Transformers, 2020, arXiv:1910.03771; each model_type has a paper of its own",
    ),
}
