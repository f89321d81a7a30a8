"""What every augmentation of a spec is, and the bounds of their numbers."""

from typing import Annotated, ClassVar

from pydantic import Field

from service.spec.strict import StrictModel
from service.spec.tasks import Modality

Probability = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0.01, le=100)]


class Augmenting(StrictModel):
    """One augmentation of a sample's input as it is stored, before a network's own preprocessing, or of its spectrogram."""

    modalities: ClassVar[tuple[Modality, ...]]
    """What it can be applied to."""
