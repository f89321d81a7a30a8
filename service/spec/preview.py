"""Some samples of a job's training split as each of its networks reads them."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.strict import StrictModel
from service.spec.warning_message import WarningMessage

USUAL_SAMPLES, MOST_SAMPLES = 5, 20
MOST_TOKENS = 1024

ReadLabel = str | float | list[str | None] | dict[str, float] | None


class ReadToken(StrictModel):
    """One token of a text."""

    id: int
    """Its number in the vocabulary."""
    text: str
    """What stands for it in the text, a special token by its name."""
    counts: bool
    """Whether the network learns to write it; false in every token where the texts have labels."""
    type: int = 0
    """Of a pair of texts 1 in the second one, for networks that tell them apart."""


class ReadText(StrictModel):
    """A text, or texts that share a row, without padding."""

    kind: Literal["text"] = "text"
    """What it is."""
    tokens: list[ReadToken]
    """In their order, the first 1,024 at most."""
    unshown: int = 0
    """How many more there are."""


class ReadImage(StrictModel):
    """An image."""

    kind: Literal["image"] = "image"
    """What it is."""
    shape: list[int]
    """Channels, height and width of what the network reads."""
    lowest: float
    """Of the values that the network reads, after their normalisation."""
    highest: float
    """Of the same values."""
    thumbnail: str | None
    """The image before the network's own normalisation and resizing, fitted and augmented as the spec says, as a PNG data URL of
    at most 96 pixels a side; null where its channels have no colours."""


class ReadSound(StrictModel):
    """A clip."""

    kind: Literal["sound"] = "sound"
    """What it is."""
    rate: int
    """Samples per second."""
    seconds: float
    """Its length without padding."""
    shape: list[int]
    """Of what the network reads: samples, or channel, frames and mel bands."""


Read = Annotated[ReadText | ReadImage | ReadSound, Field(discriminator="kind")]


class PreviewedSample(StrictModel):
    """One sample, or of a causal language model one row of tokens."""

    place: str
    """Its split, and its row and line in the file."""
    labels: dict[str, ReadLabel]
    """By target: the class, the number, the classes, the probability of each class, or the class of each word; null for none."""
    weight: float | None
    """In the losses, 1 on average; null where all count the same."""
    mixed_with: str | None = None
    """Where augmentation mixes it with another sample: that one's place. Its label counts too, by the rest of the share."""
    share: float | None = None
    """Of the sample itself, where it is mixed."""
    read: Read
    """What the network reads of it."""


class Preview(StrictModel):
    """What the networks of a job read."""

    samples: dict[str, list[PreviewedSample]]
    """By the role of the network: ``teacher`` (``teacher-1`` … of several), those between, and ``student``. A network that is
    trained reads them as in its first epoch, augmented if its training says so, a given teacher as the student does."""
    warnings: list[WarningMessage] = []
    """What of the data takes no part in the job, and what was read otherwise than one might think."""
