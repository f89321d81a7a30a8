"""Specs of the methods that compare relations of samples, by the networks' embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import BetweenLayers, Weight


class RelationalDistillation(BetweenLayers):
    """Matches distances between samples, and angles between three of them, with the teacher's."""

    summary = "Distances between samples and angles between three of them are to be the teacher's; widths may differ."
    formula = "L = label_weight · CE + weight · (distance_weight · Huber(distances) + angle_weight · Huber(angles))"
    paper = "Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, arXiv:1904.05068"
    compares_samples = True
    compares = "embedding"

    name: Literal["rkd"]
    """The method's name."""
    distance_weight: Weight = 25.0
    """Weight of the distances' loss."""
    angle_weight: Weight = 50.0
    """Weight of the angles' loss."""


class ProbabilisticTransfer(BetweenLayers):
    """Matches each sample's distribution of neighbours with the teacher's."""

    summary = "Each sample's distribution of neighbours is to be the teacher's; widths may differ."
    formula = "L = label_weight · CE + weight · KL of the rows of cosine similarities"
    paper = "Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, 2018, arXiv:1803.10837"
    compares_samples = True
    compares = "embedding"

    name: Literal["pkt"]
    """The method's name."""
    weight: Weight = 30_000.0
    """Weight of the method's own loss."""


class CorrelationCongruence(BetweenLayers):
    """Penalises errors in the student's embeddings that coincide in consecutive samples."""

    summary = "Errors of projected embeddings are not to go together in consecutive samples."
    formula = "L = label_weight · CE + weight · mean_i Σ_d |Δ_i| |Δ_(i+1)|, Δ = e_s − e_t"
    paper = "Peng, Jin, Liu, Zhou, Wu, Liu, Li, Zhang: Correlation Congruence, 2019, arXiv:1904.01802"
    compares_samples = True
    compares = "embedding"

    name: Literal["correlation-congruence"]
    """The method's name."""
    dimension: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width that both embeddings are projected to."""
    weight: Weight = 0.02
    """Weight of the method's own loss."""


class ContrastiveDistillation(BetweenLayers):
    """Contrasts the two networks' embeddings of one sample with embeddings of other samples, in both directions."""

    summary = "Contrast with a memory bank: the two networks' embeddings of one sample belong together, of others apart."
    formula = "L = label_weight · CE + weight · (NCE(e_s, bank_t) + NCE(e_t, bank_s))"
    paper = "Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, arXiv:1910.10699"
    needs_classes = True
    reads_one_class = True
    compares = "embedding"

    name: Literal["crd"]
    """The method's name."""
    negatives: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    """K, how many samples of other classes each sample is contrasted with."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 0.07
    """τ, by which similarities are divided."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the old embedding that an update of a memory bank keeps."""
    dimension: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width that both embeddings are projected to."""
    weight: Weight = 0.8
    """Weight of the method's own loss."""
