"""Specs of the methods that change who teaches whom: peers, and chains of students. None of them is a term of a sum."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.architectures import Architecture
from service.spec.methods.response import Softened
from service.spec.methods.terms import Temperature, Weighted


class DeepMutual(Weighted):
    """Student and teacher are peers that are trained at the same time: each learns the labels and the other's current outputs.

    The peer is ``teacher``, with ``source: train``; it is trained by ``training``, in the student's own steps.
    """

    summary = "Student and teacher are trained at the same time, each by the labels and by the other's outputs of that moment."
    formula = "L_s = label_weight · CE(y, z_s) + weight · τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ)); L_t with s and t exchanged"
    paper = "Zhang, Xiang, Hospedales, Lu: Deep Mutual Learning, 2018, arXiv:1706.00384"
    stands_alone = True
    weighs_rows = True

    name: Literal["deep-mutual"]
    """The method's name."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided; the paper uses 1."""


class BornAgain(Softened):
    """Generations of students of one architecture, each taught by the generation before, the first by the teacher."""

    summary = "Generations of students of one architecture, each taught by the one before; the last is the student."
    formula = "L = (1 − label_weight) · τ² · KL(softmax(z_(g−1)/τ) ‖ softmax(z_g/τ)) + label_weight · CE(y, z_g)"
    paper = "Furlanello, Lipton, Tschannen, Itti, Anandkumar: Born-Again Neural Networks, 2018, arXiv:1805.04770"
    stands_alone = True

    name: Literal["born-again"]
    """The method's name."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided; the paper uses 1."""
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the cross-entropy with the labels: one half for the paper's sum of both, 0 for its form without labels."""
    generations: Annotated[int, Field(ge=1, le=10)] = 3
    """Number of generations; the last is the student. Those before it start from ``training.seed`` + 1, + 2 and so on."""
    ensemble: bool = False
    """Whether to report the score of the generations' ensemble too: the mean of their probabilities, or of their numbers."""


class TeacherAssistant(Softened):
    """Networks between a large teacher and a small student: each is taught by the one before, the student by the last."""

    summary = "Networks of sizes in between: the teacher teaches the first, each the next, the last the student."
    formula = "L = (1 − label_weight) · τ² · KL(softmax(z_(i−1)/τ) ‖ softmax(z_i/τ)) + label_weight · CE(y, z_i)"
    paper = "Mirzadeh et al.: Improved Knowledge Distillation via Teacher Assistant, 2020, arXiv:1902.03393"
    stands_alone = True

    name: Literal["teacher-assistant"]
    """The method's name."""
    assistants: Annotated[list[Architecture], Field(min_length=1, max_length=10)]
    """Architectures in order from teacher to student. Each is trained by ``training``, from its seed + 1, + 2 and so on."""
