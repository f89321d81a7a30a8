"""Methods that compare how samples relate to each other, by the networks' embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import BetweenLayers, Weight


class RelationalDistillation(BetweenLayers):
    """Distances between samples, and angles between three, are to be the teacher's."""

    compares = "embedding"

    name: Literal["rkd"]
    """Which method this is."""
    distance_weight: Weight = 25.0
    """Of the distances."""
    angle_weight: Weight = 50.0
    """Of the angles."""


class ProbabilisticTransfer(BetweenLayers):
    """How likely each sample is the neighbour of each other is to be as with the teacher."""

    compares = "embedding"

    name: Literal["pkt"]
    """Which method this is."""
    weight: Weight = 30_000.0
    """Of the method's own loss."""


class CorrelationCongruence(BetweenLayers):
    """What the student gets wrong of the teacher's embedding is not to go together in consecutive samples."""

    compares = "embedding"

    name: Literal["correlation-congruence"]
    """Which method this is."""
    dimension: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width that both embeddings are projected to."""
    weight: Weight = 0.02
    """Of the method's own loss."""


class ContrastiveDistillation(BetweenLayers):
    """Of many samples, the student's embedding is to pick out the teacher's of the same one, and the reverse."""

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
