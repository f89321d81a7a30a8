"""Methods that compare the networks' features, layer by layer."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import BetweenLayers, Temperature, Weight


class FitNet(BetweenLayers):
    """The student's layer, through a learned regressor, is to be the teacher's."""

    summary = "Hints: an inner layer of the student is to be the teacher's, through a learned regressor."
    formula = "L = label_weight · CE + weight · MSE(r(f_s), f_t)"
    paper = "Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets, 2015, arXiv:1412.6550"
    compares_tokens = True
    compares = "middle"

    name: Literal["fitnet"]
    """Which method this is."""
    weight: Weight = 100.0
    """Of the method's own loss."""


class AttentionTransfer(BetweenLayers):
    """Where the student's maps are active is to be where the teacher's are."""

    summary = "The maps' attention, where they are active, is to be the teacher's; widths may differ."
    formula = "L = label_weight · CE + weight · Σ_layers MSE(norm(mean_c |f_s|^p), norm(mean_c |f_t|^p))"
    paper = "Zagoruyko, Komodakis: Paying More Attention to Attention, 2017, arXiv:1612.03928"

    name: Literal["attention-transfer"]
    """Which method this is."""
    power: Annotated[float, Field(gt=0, le=16)] = 2.0
    """p of ``mean_c |f|^p``."""
    weight: Weight = 1000.0
    """Of the method's own loss; the paper's β/2."""


class SimilarityPreserving(BetweenLayers):
    """Samples that are alike to the teacher are to be alike to the student."""

    summary = "Which samples of a batch are alike is to be as with the teacher; any shapes."
    formula = "L = label_weight · CE + weight · Σ_layers ‖norm(F_t F_tᵀ) − norm(F_s F_sᵀ)‖² / B²"
    paper = "Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682"
    compares_samples = True

    name: Literal["similarity-preserving"]
    """Which method this is."""
    weight: Weight = 3000.0
    """Of the method's own loss."""


class NeuronSelectivity(BetweenLayers):
    """The student's channels are to be selective as the teacher's are, as two sets of maps."""

    summary = "The distributions of the channels' maps are to match, under a polynomial kernel; widths may differ."
    formula = "L = label_weight · CE + weight · Σ_layers MMD²(f_s, f_t), kernel (xᵀy)²"
    paper = "Huang, Wang: Like What You Like, 2017, arXiv:1707.01219"

    name: Literal["nst"]
    """Which method this is."""
    weight: Weight = 50.0
    """Of the method's own loss."""


class VariationalInformation(BetweenLayers):
    """The student's layer is to tell as much as it can of the teacher's, by a regressor with a learned variance."""

    summary = "The mutual information of the layers grows, by a regressor with a learned variance for each channel."
    formula = "L = label_weight · CE + weight · Σ_layers ½ [(μ(f_s) − f_t)² / σ² + log σ²]"
    paper = "Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation, 2019, arXiv:1904.05835"
    compares_tokens = True

    name: Literal["vid"]
    """Which method this is."""
    initial_variance: Annotated[float, Field(gt=1e-4, le=1e4)] = 5.0
    """σ² of each of the teacher's channels at the start."""


class KnowledgeReview(BetweenLayers):
    """Each of the student's stages, fused with the deeper ones by attention, is to be the teacher's stage."""

    summary = "The student's deeper stages review its earlier ones: fused by attention, compared at four scales."
    formula = "L = label_weight · CE + weight · min(1, epoch/warmup_epochs) · Σ_stages HCL(fuse(f_s, deeper), f_t)"
    paper = "Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, 2021, arXiv:2104.09044"

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

    summary = (
        "DistilBERT's, for a task: softened outputs and last hidden states, best from half of the teacher's layers. The "
        "masked words' loss belongs to pre-training, which is no task here; the labels' loss takes its place."
    )
    formula = "L = label_weight · CE + weight · (kl_weight · τ² · KL(p_t ‖ p_s) + cosine_weight · (1 − cos(h_s, h_t)))"
    paper = "Sanh, Debut, Chaumond, Wolf: DistilBERT, 2019, arXiv:1910.01108"
    needs_classes = True
    compares_tokens = True
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
