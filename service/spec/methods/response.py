"""Methods that compare the networks' outputs."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Temperature, Weight, Weighted
from service.spec.strict import StrictModel


class Softened(StrictModel):
    """A loss between softened outputs, and a share of the labels' own."""

    weight: Weight = 1.0
    """Of the whole, labels and all; for a sum of terms."""
    temperature: Temperature = 4.0
    """τ, by which both networks' logits are divided. Above 1 it shows what the teacher holds likely beside its first choice."""
    divergence: Literal["kl", "cross-entropy", "mse"] = "kl"
    """``kl``: τ²·KL(p_t‖p_s). ``cross-entropy``: τ²·H(p_t, p_s). ``mse``: on the logits, τ takes no part."""
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the label's own cross-entropy in the loss; 0 trains without labels."""


class SoftTargets(Softened):
    """The teacher's outputs are the student's targets."""

    name: Literal["soft-targets"] = "soft-targets"
    """Which method this is."""


class DecoupledDistillation(Weighted):
    """The soft targets' divergence in two: how sure the target is, and what is thought of the other classes."""

    name: Literal["dkd"]
    """Which method this is."""
    alpha: Weight = 1.0
    """Of the target class's part."""
    beta: Weight = 8.0
    """Of the other classes' part. Published: 2 for ResNet56→20, 6 for WRN-40-2→16-2, 0.5 on ImageNet with τ 1."""
    temperature: Temperature = 4.0
    """τ, by which both networks' logits are divided."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e6)] = 20.0
    """Epochs over which the loss grows from 0 to its weight; 0 begins with the whole of it."""


class CorrelationDistillation(Weighted):
    """The student's outputs are to correlate with the teacher's, over classes and over samples; their scale is free."""

    name: Literal["dist"]
    """Which method this is."""
    beta: Weight = 1.0
    """Of the correlation over each sample's classes."""
    gamma: Weight = 1.0
    """Of the correlation over each class's samples."""
    temperature: Temperature = 1.0
    """τ of both softmaxes; 4 is published for CIFAR."""
    weight: Weight = 2.0
    """Of the method's own loss."""


class LogitStandardization(Weighted):
    """Logits are compared after each sample's are brought to mean 0 and standard deviation 1: shape, not size, is taught."""

    name: Literal["logit-standardization"]
    """Which method this is."""
    loss: Literal["kl", "dkd", "dist"] = "kl"
    """What compares the standardised logits, with that method's published values."""
    temperature: Temperature = 2.0
    """τ, by which the standardised logits are divided."""
    weight: Weight = 9.0
    """Of the method's own loss."""
    label_weight: Weight = 0.1
    """Of the cross-entropy with the labels; 0 trains without labels."""


class OneForAll(Weighted):
    """Exits at the student's own stages learn the teacher's outputs, the label's part raised: for unlike architectures."""

    name: Literal["ofa"]
    """Which method this is."""
    epsilon: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Exponent that raises the target's part; 1 is plain."""
    temperature: Temperature = 1.0
    """τ of both softmaxes."""
    student_layers: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    """Module paths of the student that get an exit each; by default its stages."""


class TeacherFree(Weighted):
    """A virtual teacher that gives the label a fixed probability and the rest evenly: what smoothing alone is worth."""

    name: Literal["teacher-free"]
    """Which method this is."""
    correct_probability: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """What the virtual teacher gives the label."""
    temperature: Temperature = 10.0
    """τ, by which the student's logits and the virtual teacher's probabilities are divided."""
