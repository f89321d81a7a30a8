"""The augmentations of images: parameters and bounds."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.spec.augmenting import Alpha, Augmenting, Probability, Share, Strength


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


class VerticalFlip(Augmenting):
    """Top and bottom change places: for what is seen from above, or has no upright."""

    modalities = ("image",)

    name: Literal["vertical-flip"]
    """Which augmentation this is."""
    probability: Probability = 0.5
    """How often."""


class RandomResizedCrop(Augmenting):
    """A window of the image, of any place, size and proportions, resized to the images' size.

    Of images that are fitted to ``dataset.image`` it is a window of the whole image, and stands first in the list.
    """

    modalities = ("image",)

    name: Literal["random-resized-crop"]
    """Which augmentation this is."""
    scale: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.08, 1.0]
    """The window's least and greatest share of the image's area. Gentler than published: [0.35, 1]."""
    ratio: Annotated[list[Annotated[float, Field(ge=0.1, le=10)]], Field(min_length=2, max_length=2)] = [0.75, 4 / 3]
    """Its least and greatest width over height, before it is resized."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for field, (least, most) in (("scale", self.scale), ("ratio", self.ratio)):
            if least > most:
                raise ValueError(f"{field} {[least, most]} is the least and then the greatest: exchange them")
        return self


class RandAugment(Augmenting):
    """Some operations, drawn for each sample, all of one strength: shear, shift, turn, brightness, colour, contrast, sharpness,
    posterize, solarize, autocontrast, equalize, or none."""

    modalities = ("image",)

    name: Literal["rand-augment"]
    """Which augmentation this is."""
    operations: Annotated[int, Field(ge=1, le=8)] = 2
    """How many operations, one after another."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Their strength, of 30. Published: 9 for ResNet-50 on ImageNet; larger networks take more."""


class TrivialAugment(Augmenting):
    """One of RandAugment's operations, drawn for each sample, of a strength that is drawn too, up to stronger ones."""

    modalities = ("image",)

    name: Literal["trivial-augment"]
    """Which augmentation this is."""


class Greyscale(Augmenting):
    """The image without its colours, in as many channels."""

    modalities = ("image",)

    name: Literal["greyscale"]
    """Which augmentation this is."""
    probability: Probability = 0.2
    """How often."""


class Blur(Augmenting):
    """The image through a Gaussian blur."""

    modalities = ("image",)

    name: Literal["blur"]
    """Which augmentation this is."""
    probability: Probability = 0.5
    """How often."""
    sigma: Annotated[list[Annotated[float, Field(gt=0, le=50)]], Field(min_length=2, max_length=2)] = [0.1, 2.0]
    """The least and the greatest standard deviation, in pixels."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma {self.sigma} is the least and then the greatest: exchange them")
        return self


class RandomErasing(Augmenting):
    """A box of any place, size and proportions over the image, of one brightness."""

    modalities = ("image",)

    name: Literal["random-erasing"]
    """Which augmentation this is."""
    probability: Probability = 0.5
    """How often."""
    scale: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.02, 0.33]
    """The box's least and greatest share of the image's area."""
    ratio: Annotated[list[Annotated[float, Field(ge=0.1, le=10)]], Field(min_length=2, max_length=2)] = [0.3, 3.3]
    """Its least and greatest width over height."""
    fill: Strength = 0.0
    """Brightness of the box: 0 is black, 1 the brightest value."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for field, (least, most) in (("scale", self.scale), ("ratio", self.ratio)):
            if least > most:
                raise ValueError(f"{field} {[least, most]} is the least and then the greatest: exchange them")
        return self


class CutMix(Augmenting):
    """A box of another sample of the training split in place of the sample's own; their labels share the loss by area."""

    modalities = ("image",)

    name: Literal["cutmix"]
    """Which augmentation this is."""
    alpha: Alpha = 1.0
    """1 less the box's share of the area is drawn from Beta(α, α); what sticks out of the image does not count."""
    probability: Probability = 0.5
    """How often. Published: 0.5 for CIFAR, 1 for ImageNet."""
