"""The augmentations that may stand in ``training.augment``, in the order in which they are applied: parameters, bounds, papers.

``AUGMENTATIONS`` is the whole list; the worker's operations carry one entry for each name in it, which a test compares. A bare
name is short for that augmentation with its defaults. The student and its teacher see the same view of a sample. What acts on a
spectrogram comes after all that acts on the waveform behind it, wherever it stands.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from service.spec.strict import StrictModel
from service.spec.tasks import Modality

Probability = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0.01, le=100)]
Decibels = Annotated[float, Field(ge=-120, le=120)]


class Augmenting(StrictModel):
    """One augmentation of a sample's input as it is stored, before a network's own preprocessing, or of its spectrogram."""

    modalities: ClassVar[tuple[Modality, ...]]
    """What it can be applied to."""


class Crop(Augmenting):
    """A window of the image's own size, anywhere in the image with a frame around it."""

    modalities = ("image",)

    name: Literal["crop"]
    """Which augmentation this is."""
    padding: Annotated[int, Field(ge=1, le=1024)] = 4
    """Width of the frame, in pixels: the image moves by up to so many."""
    mode: Literal["zero", "reflect"] = "zero"
    """What the frame shows: black, or the image mirrored at its border pixels."""


class Flip(Augmenting):
    """Left and right change places. Not for digits, letters or anything else that has a reading direction."""

    modalities = ("image",)

    name: Literal["flip"]
    """Which augmentation this is."""
    probability: Probability = 0.5
    """How often."""


class Cutout(Augmenting):
    """A square of one brightness anywhere over the image; where it reaches over the border, less of the image is hidden."""

    modalities = ("image",)

    name: Literal["cutout"]
    """Which augmentation this is."""
    size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Side of the square, in pixels. Published: 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN."""
    fill: Strength = 0.0
    """Brightness of the square: 0 is black, 1 the brightest value."""


class Colour(Augmenting):
    """Brightness, then contrast, then saturation, each by a factor of its own."""

    modalities = ("image",)

    name: Literal["colour"]
    """Which augmentation this is."""
    brightness: Strength = 0.2
    """The factor lies within 1 ± this; 0 leaves the brightness as it is."""
    contrast: Strength = 0.2
    """The same for the distance from the image's mean grey."""
    saturation: Strength = 0.2
    """The same for the distance from each pixel's own grey; images of one channel have none."""


class Affine(Augmenting):
    """Turned, moved and made larger or smaller, in one bilinear resampling; what comes from outside the image is black."""

    modalities = ("image",)

    name: Literal["affine"]
    """Which augmentation this is."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """The image is turned by up to this, either way."""
    shift: Strength = 0.1
    """It is moved by up to this share of its height and of its width, either way."""
    scale: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    """It becomes larger or smaller by a factor within 1 ± this."""


class Mixup(Augmenting):
    """The weighted mean of the sample and another of the training split; their labels share the loss by the same weights."""

    modalities = ("image", "waveform", "log-mel")

    name: Literal["mixup"]
    """Which augmentation this is."""
    alpha: Alpha = 0.2
    """The sample's weight is drawn from Beta(α, α): near 0 or 1 for a small α, evenly for 1. ImageNet took 0.2, CIFAR 1."""


class CutMix(Augmenting):
    """A box of another sample of the training split in place of the sample's own; their labels share the loss by area."""

    modalities = ("image",)

    name: Literal["cutmix"]
    """Which augmentation this is."""
    alpha: Alpha = 1.0
    """1 less the box's share of the area is drawn from Beta(α, α); what sticks out of the image does not count."""
    probability: Probability = 0.5
    """How often. Published: 0.5 for CIFAR, 1 for ImageNet."""


class Gain(Augmenting):
    """The waveform louder or softer."""

    modalities = ("waveform",)

    name: Literal["gain"]
    """Which augmentation this is."""
    min_db: Decibels = -6.0
    """By at least this, in decibels; below 0 it becomes softer."""
    max_db: Decibels = 6.0
    """By at most this."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_db > self.max_db:
            raise ValueError(f"min_db {self.min_db} is above max_db {self.max_db}: exchange them")
        return self


class Noise(Augmenting):
    """White noise over the waveform, at a distance from the clip's own power."""

    modalities = ("waveform",)

    name: Literal["noise"]
    """Which augmentation this is."""
    min_snr_db: Decibels = 10.0
    """Least signal-to-noise ratio, in decibels: the loudest noise."""
    max_snr_db: Decibels = 40.0
    """Greatest signal-to-noise ratio: the softest noise."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(f"min_snr_db {self.min_snr_db} is above max_snr_db {self.max_snr_db}: exchange them")
        return self


class TimeShift(Augmenting):
    """The waveform earlier or later in its window; what leaves it is lost, and silence comes in."""

    modalities = ("waveform",)

    name: Literal["time-shift"]
    """Which augmentation this is."""
    share: Share = 0.1
    """It is moved by up to this share of the window's length, either way."""


class SpecAugment(Augmenting):
    """Bands of frequencies and stretches of time of the spectrogram show its mean. Without the paper's time warping."""

    modalities = ("log-mel",)

    name: Literal["specaugment"]
    """Which augmentation this is."""
    time_masks: Annotated[int, Field(ge=0, le=20)] = 2
    """How many stretches of time."""
    time_share: Share = 0.2
    """Each is up to this share of the frames long. Published: up to 0.2 of an utterance."""
    frequency_masks: Annotated[int, Field(ge=0, le=20)] = 2
    """How many bands of frequencies."""
    frequency_share: Share = 0.2
    """Each is up to this share of the mel bands wide. Published: 0.19 and 0.34."""


class TokenDropout(Augmenting):
    """Tokens are hidden or left out, each with the same probability; special tokens never, and one token always stays."""

    modalities = ("text",)

    name: Literal["token-dropout"]
    """Which augmentation this is."""
    probability: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """How often, for each token."""
    mode: Literal["mask", "delete"] = "mask"
    """``mask``: the tokenizer's mask token stands there, or its unknown token. ``delete``: what follows moves up."""


AugmentationSpec = Annotated[
    Crop | Flip | Cutout | Colour | Affine | Mixup | CutMix | Gain | Noise | TimeShift | SpecAugment | TokenDropout,
    Field(discriminator="name"),
]
AugmentationName = Literal[
    "crop",
    "flip",
    "cutout",
    "colour",
    "affine",
    "mixup",
    "cutmix",
    "gain",
    "noise",
    "time-shift",
    "specaugment",
    "token-dropout",
]
MIXTURES = ("mixup", "cutmix")
"""Augmentations that mix in a second sample and its label."""


def _written_out(document: Any) -> Any:
    return {"name": document} if isinstance(document, str) else document


def _at_most_one_mixture(augment: list[AugmentationSpec]) -> list[AugmentationSpec]:
    mixtures = [each.name for each in augment if each.name in MIXTURES]
    if len(mixtures) > 1:
        raise ValueError(f"{' and '.join(mixtures)} each share the label with a second sample, which can be done once: keep one")
    return augment


Augment = Annotated[
    list[Annotated[AugmentationSpec, BeforeValidator(_written_out, json_schema_input_type=AugmentationName | AugmentationSpec)]],
    Field(max_length=32),
    AfterValidator(_at_most_one_mixture),
]
"""The type of ``training.augment``."""


@dataclass(frozen=True)
class AugmentationPage:
    """The entry of an augmentation in ``GET /v1/augmentations``, beside its parameters."""

    spec: type[Augmenting]
    summary: str
    paper: str | None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return self.spec.modalities


AUGMENTATIONS: dict[AugmentationName, AugmentationPage] = {
    "crop": AugmentationPage(
        spec=Crop,
        summary="A window of the image's own size, anywhere in the image with a frame around it.",
        paper="He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385",
    ),
    "flip": AugmentationPage(
        spec=Flip,
        summary="Left and right change places.",
        paper="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012",
    ),
    "cutout": AugmentationPage(
        spec=Cutout,
        summary="A square of one brightness over a part of the image.",
        paper="DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, 2017, arXiv:1708.04552",
    ),
    "colour": AugmentationPage(
        spec=Colour,
        summary="Brightness, contrast and saturation, each by a factor.",
        paper="Howard: Some Improvements on Deep Convolutional Neural Network Based Image Classification, 2013, arXiv:1312.5402",
    ),
    "affine": AugmentationPage(
        spec=Affine,
        summary="The image turned, moved and made larger or smaller.",
        paper="Simard, Steinkraus, Platt: Best Practices for Convolutional Neural Networks, 2003, doi:10.1109/ICDAR.2003.1227801",
    ),
    "mixup": AugmentationPage(
        spec=Mixup,
        summary="The weighted mean of two samples; the loss is shared between their labels by the same weights.",
        paper="Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization, 2017, arXiv:1710.09412",
    ),
    "cutmix": AugmentationPage(
        spec=CutMix,
        summary="A box of another sample; the loss is shared between their labels by area.",
        paper="Yun, Han, Oh, Chun, Choe, Yoo: CutMix, 2019, arXiv:1905.04899",
    ),
    "gain": AugmentationPage(spec=Gain, summary="The waveform louder or softer.", paper=None),
    "noise": AugmentationPage(
        spec=Noise,
        summary="White noise over the waveform, at a drawn signal-to-noise ratio.",
        paper="Sietsma, Dow: Creating Artificial Neural Networks That Generalize, 1991, doi:10.1016/0893-6080(91)90033-2",
    ),
    "time-shift": AugmentationPage(
        spec=TimeShift,
        summary="The waveform earlier or later, with silence in the gap.",
        paper="Warden: Speech Commands, 2018, arXiv:1804.03209",
    ),
    "specaugment": AugmentationPage(
        spec=SpecAugment,
        summary="Stretches of time and bands of frequencies of the spectrogram are hidden.",
        paper="Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le: SpecAugment, 2019, arXiv:1904.08779",
    ),
    "token-dropout": AugmentationPage(
        spec=TokenDropout,
        summary="Tokens are hidden or left out.",
        paper=(
            "Tang, Lu, Liu, Mou, Vechtomova, Lin: Distilling Task-Specific Knowledge from BERT, 2019, arXiv:1903.12136 (mask); "
            "Wei, Zou: EDA, 2019, arXiv:1901.11196 (delete)"
        ),
    ),
}
