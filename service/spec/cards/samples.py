"""Samples of the test split that a report shows."""

from service.spec.cards.card import Card


class Disagreement(Card):
    """One sample, or a word of one, of which student and teacher say different things."""

    place: str
    """Where it stands: its split, row and line."""
    target: str
    """Of what they say it."""
    label: str | None
    """What it is; null without a label."""
    teacher: str
    """What the teacher says, with the probability that it gives to that."""
    student: str
    """What the student says."""
    distance: float
    """Divergence of the student's probabilities from the teacher's, in nats; of numbers how far they are apart, in units of their
    deviation."""
    text: str | None = None
    """Its text, or the beginning of it; a word is marked. Null for what is none."""
    picture: str | None = None
    """Its image as a PNG data URL of at most 96 pixels a side; null for what is none."""


class Generation(Card):
    """What each language model writes behind one prompt, by the most probable token each time."""

    place: str
    """Where the prompt stands: its split, row and line."""
    prompt: str
    """The beginning of a text, or a chat up to its last answer."""
    reference: str
    """What follows in the data, or the beginning of it."""
    written: dict[str, str]
    """By role."""
