"""Methods that compare how samples relate to each other, by the networks' embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import BetweenLayers, Weight


class RelationalDistillation(BetweenLayers):
    """Distances between samples, and angles between three, are to be the teacher's."""

    summary = "Distances between samples and angles between three of them are to be the teacher's; widths may differ."
    formula = "L = label_weight · CE + weight · (distance_weight · Huber(distances) + angle_weight · Huber(angles))"
    paper = "Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, arXiv:1904.05068"
    compares_samples = True
    compares = "embedding"

    name: Literal["rkd"]
    """Which method this is."""
    distance_weight: Weight = 25.0
    """Of the distances."""
    angle_weight: Weight = 50.0
    """Of the angles."""


class ProbabilisticTransfer(BetweenLayers):
    """How likely each sample is the neighbour of each other is to be as with the teacher."""

    summary = "Each sample's distribution of neighbours is to be the teacher's; widths may differ."
    formula = "L = label_weight · CE + weight · KL of the rows of cosine similarities"
    paper = "Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, 2018, arXiv:1803.10837"
    compares_samples = True
    compares = "embedding"

    name: Literal["pkt"]
    """Which method this is."""
    weight: Weight = 30_000.0
    """Of the method's own loss."""


class CorrelationCongruence(BetweenLayers):
    """What the student gets wrong of the teacher's embedding is not to go together in consecutive samples."""

    summary = "Errors of projected embeddings are not to go together in consecutive samples."
    formula = "L = label_weight · CE + weight · mean_i Σ_d |Δ_i| |Δ_(i+1)|, Δ = e_s − e_t"
    paper = "Peng, Jin, Liu, Zhou, Wu, Liu, Li, Zhang: Correlation Congruence, 2019, arXiv:1904.01802"
    compares_samples = True
    compares = "embedding"

    name: Literal["correlation-congruence"]
    """Which method this is."""
    dimension: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width that both embeddings are projected to."""
    weight: Weight = 0.02
    """Of the method's own loss."""


class ContrastiveDistillation(BetweenLayers):
    """Of many samples, the student's embedding is to pick out the teacher's of the same one, and the reverse."""

    summary = "Contrast with a memory bank: the two networks' embeddings of one sample belong together, of others apart."
    formula = "L = label_weight · CE + weight · (NCE(e_s, bank_t) + NCE(e_t, bank_s))"
    paper = "Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, arXiv:1910.10699"
    needs_classes = True
    reads_one_class = True
    compares = "embedding"

    name: Literal["crd"]
    """Which method this is."""
    negatives: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    """K, samples of other classes that each is told from."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 0.07
    """τ, by which likenesses are divided."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of the memory banks: the share of the old that stays."""
    dimension: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width that both embeddings are projected to."""
    weight: Weight = 0.8
    """Of the method's own loss."""
