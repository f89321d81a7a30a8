"""The methods of several losses on one student: labels, and the teacher's outputs by heads of their own or shared."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Method, Temperature, Weight

Divergence = Literal["kl", "cross-entropy", "mse"]
TargetName = Annotated[str, Field(min_length=1, max_length=200)]


class DistillationNetwork(Method):
    """The teacher's output is an extra input of the student, which learns to guess it and stands alone in the end."""

    summary = "The teacher's output is an extra input of the student, which learns to guess it and stands alone in the end."
    formula = "L = label_weight · ℓ(y, S(x, t)) + λ · ℓ(T(x), T̂(x)), t = T(x), for a growing share of the samples T̂(x)"
    paper = "Romero et al., 2015, arXiv:1412.6550, for λ's part; Vapnik, Izmailov: Learning Using Privileged Information, 2015"

    name: Literal["distillation-network"]
    """Which method this is."""
    weight: Weight = 1.0
    """Of the whole, labels and all; for a sum of terms."""
    teacher_weight: Weight = 1.0
    """λ, of the loss between the teacher's output and the student's guess of it."""
    label_weight: Weight = 1.0
    """Of the task's own loss with the labels."""
    temperature: Temperature = 4.0
    """τ of the loss between teacher and guess."""
    divergence: Divergence = "kl"
    """What that loss is; see ``soft-targets``. Of a number it is the squared error."""
    extra_input: bool = True
    """False keeps the two losses and has the classifier read the student's own features alone."""
    teacher_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the samples whose guess is read in place of the teacher's output, at the first step."""
    alone_after: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the steps by which that share has risen to 1, in a straight line: from then on the student stands alone."""


class MultiTask(Method):
    """Every target's own loss and the teacher's outputs for it, on one student with a head for each target."""

    summary = "Several targets in one student, a head each, with labels and teachers by target; labels may be missing."
    formula = "L = Σ_j w_j · (label_weight · ℓ_j(y_j, S_j) + λ · ℓ_j(T_j, S_j)); learned: Σ_j w_j · ½ (e^−s_j · part_j + s_j)"
    paper = "Caruana: Multitask Learning, 1997; weights: Kendall, Gal, Cipolla, 2018, arXiv:1705.07115"

    name: Literal["multi-task"]
    """Which method this is."""
    weight: Weight = 1.0
    """Of the whole, labels and all; for a sum of terms."""
    teacher_weight: Weight = 1.0
    """λ, of the losses with the teacher's outputs."""
    label_weight: Weight = 1.0
    """Of the losses with the labels; a sample without a label for a target is left out of it."""
    temperature: Temperature = 4.0
    """τ of the losses with the teacher's outputs."""
    divergence: Divergence = "kl"
    """What those losses are; see ``soft-targets``. Of a number it is the squared error, in units of the number's variance."""
    target_weights: Annotated[dict[TargetName, Weight], Field(max_length=64)] = {}
    """Weights by target; 1 for one that is not named."""
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    """``uncertainty`` learns a variance for each target beside its weight (Kendall, Gal, Cipolla, 2018, arXiv:1705.07115)."""
