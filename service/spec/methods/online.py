"""Methods that change who teaches whom: peers, and chains of students. Each is a whole method, never a term of a sum."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.architectures import Architecture
from service.spec.methods.response import Softened
from service.spec.methods.terms import Temperature, Weighted


class DeepMutual(Weighted):
    """Student and teacher are peers that are trained at the same time: each learns the labels and what the other says just then.

    The peer is ``teacher``, with ``source: train``; it is trained as ``training`` says, in the student's own steps.
    """

    name: Literal["deep-mutual"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided; the paper softens nothing."""


class BornAgain(Softened):
    """Generations of students of one architecture, each taught by the generation before, the first by the teacher."""

    name: Literal["born-again"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided; the paper softens nothing."""
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the label's own cross-entropy in the loss: one half for the paper's sum of both, 0 for its form without labels."""
    generations: Annotated[int, Field(ge=1, le=10)] = 3
    """How many; the last is the student. Those before it start from ``training.seed`` + 1, + 2 and so on."""
    ensemble: bool = False
    """Also report what the generations score together: the mean of their probabilities, or of their numbers."""


class TeacherAssistant(Softened):
    """Networks between a large teacher and a small student: each is taught by the one before, the student by the last."""

    name: Literal["teacher-assistant"]
    """Which method this is."""
    assistants: Annotated[list[Architecture], Field(min_length=1, max_length=10)]
    """From the teacher's side to the student's. Each is trained as ``training`` says, from that seed + 1, + 2 and so on."""
