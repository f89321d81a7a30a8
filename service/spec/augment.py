"""The augmentations that may stand in ``training.augment``, in the order in which they are applied: parameters, bounds, papers.

``AUGMENTATIONS`` is the whole list; the worker's operations carry one entry for each name in it, which a test compares. A bare
name is short for that augmentation with its defaults. The student and its teacher see the same view of a sample. What acts on a
spectrogram comes after all that acts on the waveform behind it, wherever it stands.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from service.spec.augmenting import Alpha, Augmenting, Share
from service.spec.image_augment import (
    Affine,
    Blur,
    Colour,
    Crop,
    CutMix,
    Cutout,
    Flip,
    Greyscale,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    TrivialAugment,
    VerticalFlip,
)
from service.spec.tasks import Modality

Decibels = Annotated[float, Field(ge=-120, le=120)]


class Mixup(Augmenting):
    """The weighted mean of the sample and another of the training split; their labels share the loss by the same weights."""

    modalities = ("image", "waveform", "log-mel")

    name: Literal["mixup"]
    """Which augmentation this is."""
    alpha: Alpha = 0.2
    """The sample's weight is drawn from Beta(α, α): near 0 or 1 for a small α, evenly for 1. ImageNet took 0.2, CIFAR 1."""


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
    RandomResizedCrop
    | Crop
    | Flip
    | VerticalFlip
    | RandAugment
    | TrivialAugment
    | Cutout
    | RandomErasing
    | Colour
    | Greyscale
    | Blur
    | Affine
    | Mixup
    | CutMix
    | Gain
    | Noise
    | TimeShift
    | SpecAugment
    | TokenDropout,
    Field(discriminator="name"),
]
AugmentationName = Literal[
    "random-resized-crop",
    "crop",
    "flip",
    "vertical-flip",
    "rand-augment",
    "trivial-augment",
    "cutout",
    "random-erasing",
    "colour",
    "greyscale",
    "blur",
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
    "random-resized-crop": AugmentationPage(
        spec=RandomResizedCrop,
        summary="A window of the whole image, of any place, size and proportions, resized to the images' size.",
        paper="Szegedy et al.: Going Deeper with Convolutions, 2014, arXiv:1409.4842",
    ),
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
    "vertical-flip": AugmentationPage(spec=VerticalFlip, summary="Top and bottom change places.", paper=None),
    "rand-augment": AugmentationPage(
        spec=RandAugment,
        summary="Operations drawn for each sample, all of one strength.",
        paper="Cubuk, Zoph, Shlens, Le: RandAugment, 2019, arXiv:1909.13719",
    ),
    "trivial-augment": AugmentationPage(
        spec=TrivialAugment,
        summary="One operation drawn for each sample, of a drawn strength.",
        paper="Müller, Hutter: TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, 2021, arXiv:2103.10158",
    ),
    "cutout": AugmentationPage(
        spec=Cutout,
        summary="A square of one brightness over a part of the image.",
        paper="DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, 2017, arXiv:1708.04552",
    ),
    "random-erasing": AugmentationPage(
        spec=RandomErasing,
        summary="A box of any size and proportions, of one brightness, over a part of the image.",
        paper="Zhong, Zheng, Kang, Li, Yang: Random Erasing Data Augmentation, 2017, arXiv:1708.04896",
    ),
    "colour": AugmentationPage(
        spec=Colour,
        summary="Brightness, contrast and saturation, each by a factor.",
        paper="Howard: Some Improvements on Deep Convolutional Neural Network Based Image Classification, 2013, arXiv:1312.5402",
    ),
    "greyscale": AugmentationPage(
        spec=Greyscale,
        summary="The image without its colours.",
        paper="Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning, 2020, arXiv:2002.05709",
    ),
    "blur": AugmentationPage(
        spec=Blur,
        summary="A Gaussian blur of a drawn width.",
        paper="Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning, 2020, arXiv:2002.05709",
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
