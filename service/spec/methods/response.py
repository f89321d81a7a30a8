"""Specs of the methods that compare the networks' outputs."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Method, Temperature, Weight, Weighted


class Softened(Method):
    """The divergence of softened outputs, and a share of the cross-entropy with the labels."""

    weighs_rows = True

    weight: Weight = 1.0
    """Weight of the whole, labels included, in a sum of terms."""
    temperature: Temperature = 4.0
    """τ, by which both networks' logits are divided. Above 1 it raises the probabilities beside the teacher's first choice."""
    divergence: Literal["kl", "cross-entropy", "mse"] = "kl"
    """``kl``: τ²·KL(p_t‖p_s). ``cross-entropy``: τ²·H(p_t, p_s). ``mse``: of the logits, without τ."""
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the cross-entropy with the labels in the loss; 0 trains without labels."""


class SoftTargets(Softened):
    """The teacher's outputs are the student's targets."""

    summary = "Soft learning: the student learns the teacher's softened outputs, with a share of the labels."
    formula = "L = (1 − label_weight) · τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ)) + label_weight · CE(y, z_s)"
    paper = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531"

    name: Literal["soft-targets"] = "soft-targets"
    """The method's name."""


class DecoupledDistillation(Weighted):
    """The soft targets' divergence in two parts: the target class against the rest, and the other classes among themselves."""

    summary = "Decoupled: the target class's part of the divergence and the other classes' part, each with its own weight."
    formula = "L = label_weight · CE + weight · min(1, epoch/warmup_epochs) · τ² · (α · KL(target) + β · KL(others))"
    paper = "Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, arXiv:2203.08679"
    needs_classes = True
    weighs_rows = True
    reads_one_class = True

    name: Literal["dkd"]
    """The method's name."""
    alpha: Weight = 1.0
    """Weight of the target class's part."""
    beta: Weight = 8.0
    """Weight of the other classes' part. Published: 2 for ResNet56→20, 6 for WRN-40-2→16-2, 0.5 on ImageNet with τ 1."""
    temperature: Temperature = 4.0
    """τ, by which both networks' logits are divided."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e6)] = 20.0
    """Epochs over which the loss grows from 0 to its full weight; 0 starts at the full weight."""


class CorrelationDistillation(Weighted):
    """Rewards correlation of the student's outputs with the teacher's, over classes and over samples, whatever their scale."""

    summary = "The outputs' correlation with a stronger teacher's, within samples and within classes, instead of their match."
    formula = "L = label_weight · CE + weight · τ² · (β · (1 − ρ over classes) + γ · (1 − ρ over samples))"
    paper = "Huang, You, Wang, Qian, Xu: Knowledge Distillation from a Stronger Teacher, 2022, arXiv:2205.10536"
    compares_samples = True
    needs_classes = True

    name: Literal["dist"]
    """The method's name."""
    beta: Weight = 1.0
    """Weight of the correlation over each sample's classes."""
    gamma: Weight = 1.0
    """Weight of the correlation over each class's samples."""
    temperature: Temperature = 1.0
    """τ of both softmaxes; 4 is published for CIFAR."""
    weight: Weight = 2.0
    """Weight of the method's own loss."""


class LogitStandardization(Weighted):
    """Compares each sample's logits at mean 0 and standard deviation 1, so that their scale is free."""

    summary = "Logits of mean 0 and standard deviation 1 are compared: the student need not match the teacher's scale."
    formula = "L = label_weight · CE + weight · loss(Z(z_s), Z(z_t)), Z(z) = (z − mean) / std"
    paper = "Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation, 2024, arXiv:2403.01427"
    needs_classes = True
    weighs_rows = True

    name: Literal["logit-standardization"]
    """The method's name."""
    loss: Literal["kl", "dkd", "dist"] = "kl"
    """The loss that compares the standardised logits, with that method's published values."""
    temperature: Temperature = 2.0
    """τ, by which the standardised logits are divided."""
    weight: Weight = 9.0
    """Weight of the method's own loss."""
    label_weight: Weight = 0.1
    """Weight of the cross-entropy with the labels; 0 trains without labels."""


class OneForAll(Weighted):
    """Exits at the student's stages learn the teacher's outputs with the label's part raised, across unlike architectures."""

    summary = "Across architectures: exits at the student's stages learn the teacher's outputs, target raised."
    formula = "L = label_weight · CE + weight · Σ_exits −Σ ((p_t + y)^ε − y) · log p_exit"
    paper = "Hao, Guo, Han, Tang, Hu, Wang, Xu: One-for-All, 2023, arXiv:2310.19444"
    kind = "layers"
    needs_classes = True
    weighs_rows = True
    reads_one_class = True

    name: Literal["ofa"]
    """The method's name."""
    epsilon: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Exponent that raises the label's part; 1 leaves it as it is."""
    temperature: Temperature = 1.0
    """τ of both softmaxes."""
    student_layers: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    """Module paths of the student that get an exit each; by default its stages."""


class TeacherFree(Weighted):
    """A virtual teacher gives the label a fixed probability and spreads the rest evenly: the gain of label smoothing alone."""

    summary = "A virtual teacher, right with a fixed probability: how much of a gain is smoothing alone."
    formula = "L = label_weight · CE + weight · τ² · KL(softmax(p_v/τ) ‖ softmax(z_s/τ))"
    paper = "Yuan, Tay, Li, Wang, Feng: Revisiting Knowledge Distillation via Label Smoothing, 2020, arXiv:1909.11723"
    needs_classes = True
    weighs_rows = True
    reads_one_class = True

    name: Literal["teacher-free"]
    """The method's name."""
    correct_probability: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Probability that the virtual teacher gives the label."""
    temperature: Temperature = 10.0
    """τ, by which the student's logits and the virtual teacher's probabilities are divided."""
