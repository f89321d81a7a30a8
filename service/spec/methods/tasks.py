"""Specs of the methods that train one student by several losses: with labels, and with the teacher's outputs by head."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Method, Temperature, Weight

Divergence = Literal["kl", "cross-entropy", "mse"]
TargetName = Annotated[str, Field(min_length=1, max_length=200)]


class DistillationNetwork(Method):
    """The student reads the teacher's outputs as an extra input, learns to predict them and finally does without them."""

    summary = "The teacher's output is an extra input of the student, which learns to predict it and does without it in the end."
    formula = "L = label_weight · ℓ(y, S(x, t)) + λ · ℓ(T(x), T̂(x)), t = T(x), for a growing share of the samples T̂(x)"
    paper = "Romero et al., 2015, arXiv:1412.6550, for λ's part; Vapnik, Izmailov: Learning Using Privileged Information, 2015"
    kind = "layers"
    weighs_rows = True

    name: Literal["distillation-network"]
    """The method's name."""
    weight: Weight = 1.0
    """Weight of the whole, labels included, in a sum of terms."""
    teacher_weight: Weight = 1.0
    """λ, weight of the loss between the teacher's outputs and the student's prediction of them."""
    label_weight: Weight = 1.0
    """Weight of the task's own loss with the labels."""
    temperature: Temperature = 4.0
    """τ of the loss between the teacher's outputs and their prediction."""
    divergence: Divergence = "kl"
    """The form of that loss; see ``soft-targets``. For a number it is the squared error."""
    extra_input: bool = True
    """Whether the classifier reads the teacher's outputs; false keeps the two losses and reads the student's features alone."""
    teacher_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the samples, at the first step, that read the student's prediction in place of the teacher's outputs."""
    alone_after: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the steps after which that share, rising linearly, is 1 and the student does without its teacher."""


class MultiTask(Method):
    """Trains one student with a head for each target, by each target's labels and the teacher's outputs for it."""

    summary = "Several targets in one student, a head each, with labels and teachers by target; labels may be missing."
    formula = "L = Σ_j w_j · (label_weight · ℓ_j(y_j, S_j) + λ · ℓ_j(T_j, S_j)); learned: Σ_j w_j · ½ (e^−s_j · part_j + s_j)"
    paper = "Caruana: Multitask Learning, 1997; weights: Kendall, Gal, Cipolla, 2018, arXiv:1705.07115"
    weighs_rows = True

    name: Literal["multi-task"]
    """The method's name."""
    weight: Weight = 1.0
    """Weight of the whole, labels included, in a sum of terms."""
    teacher_weight: Weight = 1.0
    """λ, weight of the losses with the teacher's outputs."""
    label_weight: Weight = 1.0
    """Weight of the losses with the labels; a sample without a label for a target is left out of it."""
    temperature: Temperature = 4.0
    """τ of the losses with the teacher's outputs."""
    divergence: Divergence = "kl"
    """The form of those losses; see ``soft-targets``. For a number it is the squared error in units of the number's variance."""
    target_weights: Annotated[dict[TargetName, Weight], Field(max_length=64)] = {}
    """Weights by target; a target that is not named has 1."""
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    """``uncertainty`` learns a variance for each target beside its weight (Kendall, Gal, Cipolla, 2018, arXiv:1705.07115)."""
