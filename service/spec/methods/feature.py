"""Specs of the methods that compare the networks' features, layer by layer."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import BetweenLayers, Temperature, Weight


class FitNet(BetweenLayers):
    """Matches the student's layer, behind a learned regressor, with the teacher's."""

    summary = "Hints: an inner layer of the student is to be the teacher's, through a learned regressor."
    formula = "L = label_weight · CE + weight · MSE(r(f_s), f_t)"
    paper = "Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets, 2015, arXiv:1412.6550"
    compares_tokens = True
    compares = "middle"

    name: Literal["fitnet"]
    """The method's name."""
    weight: Weight = 100.0
    """Weight of the method's own loss."""


class AttentionTransfer(BetweenLayers):
    """Matches where the student's maps are active with where the teacher's are."""

    summary = "The maps' attention, where they are active, is to be the teacher's; widths may differ."
    formula = "L = label_weight · CE + weight · Σ_layers MSE(norm(mean_c |f_s|^p), norm(mean_c |f_t|^p))"
    paper = "Zagoruyko, Komodakis: Paying More Attention to Attention, 2017, arXiv:1612.03928"

    name: Literal["attention-transfer"]
    """The method's name."""
    power: Annotated[float, Field(gt=0, le=16)] = 2.0
    """p of ``mean_c |f|^p``."""
    weight: Weight = 1000.0
    """Weight of the method's own loss; the paper's β/2."""


class SimilarityPreserving(BetweenLayers):
    """Matches the similarities of a batch's samples in the student with those in the teacher."""

    summary = "Which samples of a batch are alike is to be as with the teacher; any shapes."
    formula = "L = label_weight · CE + weight · Σ_layers ‖norm(F_t F_tᵀ) − norm(F_s F_sᵀ)‖² / B²"
    paper = "Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682"
    compares_samples = True

    name: Literal["similarity-preserving"]
    """The method's name."""
    weight: Weight = 3000.0
    """Weight of the method's own loss."""


class NeuronSelectivity(BetweenLayers):
    """Matches the distribution of the student's channels, as a set of maps, with that of the teacher's."""

    summary = "The distributions of the channels' maps are to match, under a polynomial kernel; widths may differ."
    formula = "L = label_weight · CE + weight · Σ_layers MMD²(f_s, f_t), kernel (xᵀy)²"
    paper = "Huang, Wang: Like What You Like, 2017, arXiv:1707.01219"

    name: Literal["nst"]
    """The method's name."""
    weight: Weight = 50.0
    """Weight of the method's own loss."""


class VariationalInformation(BetweenLayers):
    """Maximises the mutual information of the student's layer and the teacher's, by a regressor with a learned variance."""

    summary = "The mutual information of the layers grows, by a regressor with a learned variance for each channel."
    formula = "L = label_weight · CE + weight · Σ_layers ½ [(μ(f_s) − f_t)² / σ² + log σ²]"
    paper = "Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation, 2019, arXiv:1904.05835"
    compares_tokens = True

    name: Literal["vid"]
    """The method's name."""
    initial_variance: Annotated[float, Field(gt=1e-4, le=1e4)] = 5.0
    """σ² of each of the teacher's channels at the start."""


class KnowledgeReview(BetweenLayers):
    """Matches each of the student's stages, fused with the deeper ones by attention, with the teacher's stage."""

    summary = "The student's deeper stages review its earlier ones: fused by attention, compared at four scales."
    formula = "L = label_weight · CE + weight · min(1, epoch/warmup_epochs) · Σ_stages HCL(fuse(f_s, deeper), f_t)"
    paper = "Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, 2021, arXiv:2104.09044"

    name: Literal["review"]
    """The method's name."""
    width: Annotated[int, Field(ge=1, le=8192)] = 512
    """Largest number of channels inside a fusion."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e6)] = 20.0
    """Epochs over which the loss grows from 0 to its full weight; 0 starts at the full weight."""
    weight: Weight = 5.0
    """Weight of the method's own loss. Published: 5 for the 8x4 and the wide ResNets, 0.6 for ResNet-20, 1 for ResNet-32."""


class DistilBert(BetweenLayers):
    """Matches softened outputs, and the direction of the last hidden states, token by token.

    The paper distils in pre-training, with the masked words' own loss at weight 2; here the labels' loss takes its place. The
    paper's student begins with every second layer of the teacher: ``student.source: teacher-layers``.
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
    """The method's name."""
    temperature: Temperature = 2.0
    """τ of the softened outputs."""
    kl_weight: Weight = 5.0
    """Weight of the softened outputs' divergence."""
    cosine_weight: Weight = 1.0
    """Weight of the hidden states' 1 − cosine; a learned linear map brings states of another width to the teacher's."""
    label_weight: Weight = 2.0
    """Weight of the cross-entropy with the labels. In ``terms`` it is 0 unless it is given."""
