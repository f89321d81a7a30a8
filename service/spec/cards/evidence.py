"""What a network's outputs on the test split show of it beside its figures: how sure these are, and where it errs."""

from service.spec.cards.card import Card

MOST_CLASSES, MOST_CONFUSED_CLASSES, MOST_CONFUSIONS = 200, 40, 20
"""Of which a report tells one by one; whose confusions it has in a table; of the pairs that are mistaken most often."""


class ClassCard(Card):
    """One class of a target."""

    name: str
    """Of the class."""
    rows: int
    """Samples, or what else is counted, whose label it is."""
    predicted: int
    """Samples for which the network says it."""
    precision: float
    """Share of those that are right; 0 where there are none."""
    recall: float
    """Share of its own samples that are found; 0 where there are none."""
    recall_interval: tuple[float, float] | None
    """Wilson's 95 % interval of that; null without samples."""
    f1: float
    """Harmonic mean of both."""


class ConfusionCard(Card):
    """How often each class is taken for each."""

    classes: list[str]
    """In the order of rows and columns."""
    counts: list[list[int]]
    """A row for each class of the labels, a column for each that was predicted."""


class Mistake(Card):
    """One class that is taken for another."""

    label: str
    """What it is."""
    predicted: str
    """What the network says."""
    rows: int
    """How often."""


class CalibrationBin(Card):
    """Predictions of which the network is about equally sure."""

    rows: int
    """How many."""
    confidence: float
    """Mean probability that it gives to what it predicts."""
    accuracy: float
    """Share of them that are right."""


class CalibrationCard(Card):
    """Whether a network is right as often as it says: expected calibration error and its bins (Guo et al., 2017)."""

    error: float
    """Mean distance of confidence and accuracy over the samples."""
    bins: list[CalibrationBin]
    """Of 15 equal parts of 0 to 1 those that are not empty, in their order."""


class TargetEvidence(Card):
    """Of one target."""

    intervals: dict[str, tuple[float, float]] = {}
    """95 % intervals of its ``metrics``, by the bootstrap over samples; a figure that it does not suit has none."""
    classes: list[ClassCard] = []
    """Each class in their order; of more than 200 the 200 of the lowest recall. Empty for a number."""
    confusion: ConfusionCard | None = None
    """Null for more than 40 classes, for classes that do not exclude each other, and for a number."""
    mistakes: list[Mistake] = []
    """The most frequent ones, 20 at most."""
    calibration: CalibrationCard | None = None
    """Of classes that do not exclude each other: of each yes or no. Null for a number."""
