"""Methods that compare the networks' features, layer by layer."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import BetweenLayers, Temperature, Weight


class FitNet(BetweenLayers):
    """The student's layer, through a learned regressor, is to be the teacher's."""

    compares = "middle"

    name: Literal["fitnet"]
    """Which method this is."""
    weight: Weight = 100.0
    """Of the method's own loss."""


class AttentionTransfer(BetweenLayers):
    """Where the student's maps are active is to be where the teacher's are."""

    name: Literal["attention-transfer"]
    """Which method this is."""
    power: Annotated[float, Field(gt=0, le=16)] = 2.0
    """p of ``mean_c |f|^p``."""
    weight: Weight = 1000.0
    """Of the method's own loss; the paper's β/2."""


class SimilarityPreserving(BetweenLayers):
    """Samples that are alike to the teacher are to be alike to the student."""

    name: Literal["similarity-preserving"]
    """Which method this is."""
    weight: Weight = 3000.0
    """Of the method's own loss."""


class NeuronSelectivity(BetweenLayers):
    """The student's channels are to be selective as the teacher's are, as two sets of maps."""

    name: Literal["nst"]
    """Which method this is."""
    weight: Weight = 50.0
    """Of the method's own loss."""


class VariationalInformation(BetweenLayers):
    """The student's layer is to tell as much as it can of the teacher's, by a regressor with a learned variance."""

    name: Literal["vid"]
    """Which method this is."""
    initial_variance: Annotated[float, Field(gt=1e-4, le=1e4)] = 5.0
    """σ² of each of the teacher's channels at the start."""


class KnowledgeReview(BetweenLayers):
    """Each of the student's stages, fused with the deeper ones by attention, is to be the teacher's stage."""

    name: Literal["review"]
    """Which method this is."""
    width: Annotated[int, Field(ge=1, le=8192)] = 512
    """Most channels inside a fusion."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e6)] = 20.0
    """Epochs over which the loss grows from 0 to its weight; 0 begins with the whole of it."""
    weight: Weight = 5.0
    """Of the method's own loss. Published: 5 for the 8x4 and the wide ResNets, 0.6 for ResNet-20, 1 for ResNet-32."""


class DistilBert(BetweenLayers):
    """Softened outputs, and last hidden states that point the same way as the teacher's, token by token.

    The paper distils in pre-training, with the masked words' own loss at weight 2; here the labels' loss stands in its place. Its
    student begins with every second layer of the teacher: ``student.source: teacher-layers``.
    """

    compares = "embedding"

    name: Literal["distilbert"]
    """Which method this is."""
    temperature: Temperature = 2.0
    """τ of the softened outputs."""
    kl_weight: Weight = 5.0
    """Of the softened outputs' divergence."""
    cosine_weight: Weight = 1.0
    """Of the hidden states' 1 − cosine; states of another width are compared behind a learned linear map."""
    label_weight: Weight = 2.0
    """Of the cross-entropy with the labels. In ``terms`` it is 0 unless it is given."""
