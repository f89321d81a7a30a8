"""The distillation methods that may stand in a spec: parameters, defaults, bounds, paper and formula.

``METHODS`` is the whole list; the worker's terms carry one entry for each name in it, which a test compares. A method stands by
its name, or several as ``terms``, which are summed.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from service.spec.data import EMBEDDING, Task
from service.spec.methods.embedding import EmbeddingDistillation
from service.spec.methods.feature import (
    AttentionTransfer,
    DistilBert,
    FitNet,
    KnowledgeReview,
    NeuronSelectivity,
    SimilarityPreserving,
    VariationalInformation,
)
from service.spec.methods.online import BornAgain, DeepMutual, TeacherAssistant
from service.spec.methods.relation import (
    ContrastiveDistillation,
    CorrelationCongruence,
    ProbabilisticTransfer,
    RelationalDistillation,
)
from service.spec.methods.response import (
    CorrelationDistillation,
    DecoupledDistillation,
    LogitStandardization,
    OneForAll,
    Softened,
    SoftTargets,
    TeacherFree,
)
from service.spec.methods.sequence import (
    ForwardKl,
    JensenShannon,
    OnPolicy,
    ReverseKl,
    SequenceLevel,
    UniversalLogit,
)
from service.spec.methods.tasks import DistillationNetwork, MultiTask
from service.spec.methods.terms import BetweenLayers, Layers, Weight, Weighted
from service.spec.strict import StrictModel

__all__ = [
    "BETWEEN_SAMPLES",
    "METHODS",
    "OF_CLASSES",
    "OF_HARD_LABELS",
    "OF_TOKENS",
    "TOKEN_BY_TOKEN",
    "AttentionTransfer",
    "BetweenLayers",
    "BornAgain",
    "ContrastiveDistillation",
    "CorrelationCongruence",
    "CorrelationDistillation",
    "DecoupledDistillation",
    "DeepMutual",
    "DistilBert",
    "DistillationNetwork",
    "EmbeddingDistillation",
    "FitNet",
    "ForwardKl",
    "JensenShannon",
    "KnowledgeReview",
    "Labels",
    "Layers",
    "LogitStandardization",
    "MethodPage",
    "MethodSpec",
    "MultiTask",
    "NeuronSelectivity",
    "OnPolicy",
    "OneForAll",
    "ProbabilisticTransfer",
    "RelationalDistillation",
    "ReverseKl",
    "SequenceLevel",
    "SimilarityPreserving",
    "SoftTargets",
    "Softened",
    "SumOfTerms",
    "TeacherAssistant",
    "TeacherFree",
    "Term",
    "UniversalLogit",
    "VariationalInformation",
    "Weighted",
    "method_names",
    "tasks_of",
    "terms_of",
]


class Labels(StrictModel):
    """The task's own loss, the cross-entropy with the labels: a term of a sum."""

    name: Literal["labels"]
    """Which term this is."""
    weight: Weight = 1.0
    """Of the term in the sum."""


_SUM = "terms: […]"


def _tag(document: Any) -> Any:
    """Which method a document is; one without a name is the soft targets, or a sum."""
    match document:
        case {"name": name}:
            return name
        case dict():
            return _SUM if "terms" in document else "soft-targets"
        case SumOfTerms():
            return _SUM
        case _:
            return getattr(document, "name", None)


def _term_tag(document: Any) -> Any:
    return document.get("name") if isinstance(document, dict) else getattr(document, "name", None)


_Single = (
    Annotated[SoftTargets, Tag("soft-targets")]
    | Annotated[DistillationNetwork, Tag("distillation-network")]
    | Annotated[MultiTask, Tag("multi-task")]
    | Annotated[DecoupledDistillation, Tag("dkd")]
    | Annotated[CorrelationDistillation, Tag("dist")]
    | Annotated[LogitStandardization, Tag("logit-standardization")]
    | Annotated[OneForAll, Tag("ofa")]
    | Annotated[TeacherFree, Tag("teacher-free")]
    | Annotated[FitNet, Tag("fitnet")]
    | Annotated[AttentionTransfer, Tag("attention-transfer")]
    | Annotated[SimilarityPreserving, Tag("similarity-preserving")]
    | Annotated[NeuronSelectivity, Tag("nst")]
    | Annotated[VariationalInformation, Tag("vid")]
    | Annotated[KnowledgeReview, Tag("review")]
    | Annotated[DistilBert, Tag("distilbert")]
    | Annotated[RelationalDistillation, Tag("rkd")]
    | Annotated[ProbabilisticTransfer, Tag("pkt")]
    | Annotated[CorrelationCongruence, Tag("correlation-congruence")]
    | Annotated[ContrastiveDistillation, Tag("crd")]
    | Annotated[EmbeddingDistillation, Tag("embedding")]
)
_OfTokens = (
    Annotated[ForwardKl, Tag("forward-kl")]
    | Annotated[ReverseKl, Tag("reverse-kl")]
    | Annotated[JensenShannon, Tag("jsd")]
    | Annotated[SequenceLevel, Tag("sequence")]
    | Annotated[OnPolicy, Tag("on-policy")]
    | Annotated[UniversalLogit, Tag("uld")]
)
Term = Annotated[_Single | Annotated[Labels, Tag("labels")], Discriminator(_term_tag)]


_Whole = (
    Annotated[DeepMutual, Tag("deep-mutual")]
    | Annotated[BornAgain, Tag("born-again")]
    | Annotated[TeacherAssistant, Tag("teacher-assistant")]
)
"""Methods that are more than a loss, and so no term of a sum."""


class SumOfTerms(StrictModel):
    """Several methods at once: the sum of their losses, each by its weight. Labels count where a term says so."""

    terms: Annotated[list[Term], Field(min_length=1, max_length=16)]
    """Methods by name with their parameters, and ``labels``. In a sum their ``label_weight`` is 0 unless it is given."""

    @model_validator(mode="before")
    @classmethod
    def _labels_only_where_said(cls, document: Any) -> Any:
        if not isinstance(document, dict) or not isinstance(document.get("terms"), list):
            return document
        for term in document["terms"]:
            if isinstance(term, dict) and isinstance(term.get("name"), str) and term["name"] in NOT_IN_A_SUM | OF_TOKENS:
                raise ValueError(f"{term['name']} is more than a loss and no term of a sum: name it as the method itself")
        terms = [
            {"label_weight": 0.0, **term} if isinstance(term, dict) and term.get("name") != "labels" else term
            for term in document["terms"]
        ]
        return {**document, "terms": terms}


MethodSpec = Annotated[_Single | _OfTokens | _Whole | Annotated[SumOfTerms, Tag(_SUM)], Discriminator(_tag)]


BETWEEN_SAMPLES = {"rkd", "pkt", "correlation-congruence", "similarity-preserving", "dist"}
"""Methods that compare the samples of a batch with each other, and so need two."""
OF_CLASSES = {"dkd", "dist", "logit-standardization", "ofa", "teacher-free", "crd", "distilbert"}
"""Methods that are made for one target of classes."""
OF_HARD_LABELS = {"dkd", "ofa", "teacher-free", "crd"}
"""Methods whose own loss reads the one class of each sample; so does ``logit-standardization`` with the loss of ``dkd``."""
TOKEN_BY_TOKEN = {"fitnet", "vid", "distilbert"}
"""Methods that compare what two networks make of one token, where the layers have something for each token."""
NOT_IN_A_SUM = {"embedding", "deep-mutual", "born-again", "teacher-assistant"}
"""Methods that are alone in a job: they say who teaches whom, or how long, rather than by what loss, or have no labels beside."""
OF_TOKENS = {"forward-kl", "reverse-kl", "jsd", "sequence", "on-policy", "uld"}
"""Methods of causal language models, which no other task has; they stand alone, not among ``terms``."""


def terms_of(method: MethodSpec) -> list[Any]:
    """The terms of a sum, or the one method."""
    return list(method.terms) if isinstance(method, SumOfTerms) else [method]


def tasks_of(name: str) -> list[Task]:
    """The tasks that a method is for."""
    of = {"causal-lm": OF_TOKENS, EMBEDDING: {"embedding"}}
    special = {each for names in of.values() for each in names}
    return [task for task in get_args(Task) if (name in of[task] if task in of else name not in special)]


def method_names(method: MethodSpec) -> list[str]:
    """The name of the method, or of each of the terms that are summed."""
    return [term.name for term in terms_of(method)]


@dataclass(frozen=True)
class MethodPage:
    """What ``GET /v1/methods`` tells of a method beside its parameters."""

    spec: type[StrictModel]
    summary: str
    formula: str
    paper: str


METHODS: dict[str, MethodPage] = {
    "soft-targets": MethodPage(
        spec=SoftTargets,
        summary="Soft learning: the student learns the teacher's softened outputs, with a share of the labels.",
        formula="L = (1 − label_weight) · τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ)) + label_weight · CE(y, z_s)",
        paper="Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531",
    ),
    "distillation-network": MethodPage(
        spec=DistillationNetwork,
        summary="The teacher's output is an extra input of the student, which learns to guess it and stands alone in the end.",
        formula="L = label_weight · ℓ(y, S(x, t)) + λ · ℓ(T(x), T̂(x)), t = T(x), for a growing share of the samples T̂(x)",
        paper="Romero et al., 2015, arXiv:1412.6550, for λ's part; Vapnik, Izmailov: Learning Using Privileged Information, 2015",
    ),
    "multi-task": MethodPage(
        spec=MultiTask,
        summary="Several targets in one student, a head each, with labels and teachers by target; labels may be missing.",
        formula="L = Σ_j w_j · (label_weight · ℓ_j(y_j, S_j) + λ · ℓ_j(T_j, S_j)); learned: Σ_j w_j · ½ (e^−s_j · part_j + s_j)",
        paper="Caruana: Multitask Learning, 1997; weights: Kendall, Gal, Cipolla, 2018, arXiv:1705.07115",
    ),
    "dkd": MethodPage(
        spec=DecoupledDistillation,
        summary="Decoupled: the target class's part of the divergence and the other classes' part, each with its own weight.",
        formula="L = label_weight · CE + weight · min(1, epoch/warmup_epochs) · τ² · (α · KL(target) + β · KL(others))",
        paper="Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, arXiv:2203.08679",
    ),
    "dist": MethodPage(
        spec=CorrelationDistillation,
        summary="The outputs' correlation with a stronger teacher's, within samples and within classes, instead of their match.",
        formula="L = label_weight · CE + weight · τ² · (β · (1 − ρ over classes) + γ · (1 − ρ over samples))",
        paper="Huang, You, Wang, Qian, Xu: Knowledge Distillation from a Stronger Teacher, 2022, arXiv:2205.10536",
    ),
    "logit-standardization": MethodPage(
        spec=LogitStandardization,
        summary="Logits of mean 0 and standard deviation 1 are compared: the student need not match the teacher's scale.",
        formula="L = label_weight · CE + weight · loss(Z(z_s), Z(z_t)), Z(z) = (z − mean) / std",
        paper="Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation, 2024, arXiv:2403.01427",
    ),
    "ofa": MethodPage(
        spec=OneForAll,
        summary="Across architectures: exits at the student's stages learn the teacher's outputs, target raised.",
        formula="L = label_weight · CE + weight · Σ_exits −Σ ((p_t + y)^ε − y) · log p_exit",
        paper="Hao, Guo, Han, Tang, Hu, Wang, Xu: One-for-All, 2023, arXiv:2310.19444",
    ),
    "teacher-free": MethodPage(
        spec=TeacherFree,
        summary="A virtual teacher, right with a fixed probability: how much of a gain is smoothing alone.",
        formula="L = label_weight · CE + weight · τ² · KL(softmax(p_v/τ) ‖ softmax(z_s/τ))",
        paper="Yuan, Tay, Li, Wang, Feng: Revisiting Knowledge Distillation via Label Smoothing, 2020, arXiv:1909.11723",
    ),
    "fitnet": MethodPage(
        spec=FitNet,
        summary="Hints: an inner layer of the student is to be the teacher's, through a learned regressor.",
        formula="L = label_weight · CE + weight · MSE(r(f_s), f_t)",
        paper="Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets, 2015, arXiv:1412.6550",
    ),
    "attention-transfer": MethodPage(
        spec=AttentionTransfer,
        summary="The maps' attention, where they are active, is to be the teacher's; widths may differ.",
        formula="L = label_weight · CE + weight · Σ_layers MSE(norm(mean_c |f_s|^p), norm(mean_c |f_t|^p))",
        paper="Zagoruyko, Komodakis: Paying More Attention to Attention, 2017, arXiv:1612.03928",
    ),
    "similarity-preserving": MethodPage(
        spec=SimilarityPreserving,
        summary="Which samples of a batch are alike is to be as with the teacher; any shapes.",
        formula="L = label_weight · CE + weight · Σ_layers ‖norm(F_t F_tᵀ) − norm(F_s F_sᵀ)‖² / B²",
        paper="Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682",
    ),
    "nst": MethodPage(
        spec=NeuronSelectivity,
        summary="The distributions of the channels' maps are to match, under a polynomial kernel; widths may differ.",
        formula="L = label_weight · CE + weight · Σ_layers MMD²(f_s, f_t), kernel (xᵀy)²",
        paper="Huang, Wang: Like What You Like, 2017, arXiv:1707.01219",
    ),
    "vid": MethodPage(
        spec=VariationalInformation,
        summary="The mutual information of the layers grows, by a regressor with a learned variance for each channel.",
        formula="L = label_weight · CE + weight · Σ_layers ½ [(μ(f_s) − f_t)² / σ² + log σ²]",
        paper="Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation, 2019, arXiv:1904.05835",
    ),
    "review": MethodPage(
        spec=KnowledgeReview,
        summary="The student's deeper stages review its earlier ones: fused by attention, compared at four scales.",
        formula="L = label_weight · CE + weight · min(1, epoch/warmup_epochs) · Σ_stages HCL(fuse(f_s, deeper), f_t)",
        paper="Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, 2021, arXiv:2104.09044",
    ),
    "distilbert": MethodPage(
        spec=DistilBert,
        summary=(
            "DistilBERT's, for a task: softened outputs and last hidden states, best from half of the teacher's layers. The "
            "masked words' loss belongs to pre-training, which is no task here; the labels' loss takes its place."
        ),
        formula="L = label_weight · CE + weight · (kl_weight · τ² · KL(p_t ‖ p_s) + cosine_weight · (1 − cos(h_s, h_t)))",
        paper="Sanh, Debut, Chaumond, Wolf: DistilBERT, 2019, arXiv:1910.01108",
    ),
    "rkd": MethodPage(
        spec=RelationalDistillation,
        summary="Distances between samples and angles between three of them are to be the teacher's; widths may differ.",
        formula="L = label_weight · CE + weight · (distance_weight · Huber(distances) + angle_weight · Huber(angles))",
        paper="Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, arXiv:1904.05068",
    ),
    "pkt": MethodPage(
        spec=ProbabilisticTransfer,
        summary="Each sample's distribution of neighbours is to be the teacher's; widths may differ.",
        formula="L = label_weight · CE + weight · KL of the rows of cosine similarities",
        paper="Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, 2018, arXiv:1803.10837",
    ),
    "correlation-congruence": MethodPage(
        spec=CorrelationCongruence,
        summary="Errors of projected embeddings are not to go together in consecutive samples.",
        formula="L = label_weight · CE + weight · mean_i Σ_d |Δ_i| |Δ_(i+1)|, Δ = e_s − e_t",
        paper="Peng, Jin, Liu, Zhou, Wu, Liu, Li, Zhang: Correlation Congruence, 2019, arXiv:1904.01802",
    ),
    "crd": MethodPage(
        spec=ContrastiveDistillation,
        summary="Contrast with a memory bank: the two networks' embeddings of one sample belong together, of others apart.",
        formula="L = label_weight · CE + weight · (NCE(e_s, bank_t) + NCE(e_t, bank_s))",
        paper="Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, arXiv:1910.10699",
    ),
    "embedding": MethodPage(
        spec=EmbeddingDistillation,
        summary="Sentence embeddings: a smaller encoder's vector for a text is to be the teacher's; widths may differ.",
        formula="L = weight · MSE(P e_s, e_t), or weight · (1 − cos(P e_s, e_t)); P is learned where widths differ",
        paper="Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual, 2020, arXiv:2004.09813",
    ),
    "deep-mutual": MethodPage(
        spec=DeepMutual,
        summary="Student and teacher are trained at the same time, each by the labels and by the other's outputs of that moment.",
        formula="L_s = label_weight · CE(y, z_s) + weight · τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ)); L_t with s and t exchanged",
        paper="Zhang, Xiang, Hospedales, Lu: Deep Mutual Learning, 2018, arXiv:1706.00384",
    ),
    "born-again": MethodPage(
        spec=BornAgain,
        summary="Generations of students of one architecture, each taught by the one before; the last is the student.",
        formula="L = (1 − label_weight) · τ² · KL(softmax(z_(g−1)/τ) ‖ softmax(z_g/τ)) + label_weight · CE(y, z_g)",
        paper="Furlanello, Lipton, Tschannen, Itti, Anandkumar: Born-Again Neural Networks, 2018, arXiv:1805.04770",
    ),
    "teacher-assistant": MethodPage(
        spec=TeacherAssistant,
        summary="Networks of sizes in between: the teacher teaches the first, each the next, the last the student.",
        formula="L = (1 − label_weight) · τ² · KL(softmax(z_(i−1)/τ) ‖ softmax(z_i/τ)) + label_weight · CE(y, z_i)",
        paper="Mirzadeh et al.: Improved Knowledge Distillation via Teacher Assistant, 2020, arXiv:1902.03393",
    ),
    "forward-kl": MethodPage(
        spec=ForwardKl,
        summary="Language models: the teacher's distribution of each next token is the student's target.",
        formula="L = weight · τ² · mean over tokens of KL(p_t ‖ p_s) + label_weight · CE",
        paper="Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531",
    ),
    "reverse-kl": MethodPage(
        spec=ReverseKl,
        summary="Language models: the student writes nothing that the teacher holds unlikely.",
        formula="L = weight · τ² · mean over tokens of KL(p_s ‖ p_t) + label_weight · CE",
        paper="Gu, Dong, Wei, Huang: MiniLLM, 2024, arXiv:2306.08543",
    ),
    "jsd": MethodPage(
        spec=JensenShannon,
        summary="Language models: the generalised Jensen–Shannon divergence, between the forward and the reverse one.",
        formula="L = weight · τ² · mean over tokens of (β · KL(p_t ‖ m) + (1 − β) · KL(p_s ‖ m)) + label_weight · CE, "
        "m = β · p_t + (1 − β) · p_s",
        paper="Agarwal et al.: On-Policy Distillation of Language Models, 2024, arXiv:2306.13649",
    ),
    "sequence": MethodPage(
        spec=SequenceLevel,
        summary="Language models: the student learns whole texts that the teacher wrote.",
        formula="L = weight · CE(teacher's text) + label_weight · CE(data)",
        paper="Kim, Rush: Sequence-Level Knowledge Distillation, 2016, arXiv:1606.07947",
    ),
    "on-policy": MethodPage(
        spec=OnPolicy,
        summary="Language models: the teacher's distributions on texts that the student writes itself, mixed with the data's.",
        formula="L = weight · JSD_β(p_t, p_s) on the student's own texts in a share λ of the steps, on the data's in the others",
        paper="Agarwal et al.: On-Policy Distillation of Language Models, 2024, arXiv:2306.13649",
    ),
    "uld": MethodPage(
        spec=UniversalLogit,
        summary="Language models with different tokenizers: probabilities are compared by rank.",
        formula="L = label_weight · CE + weight · mean over tokens of Σ_i |p_s(i) − p_t(i)|, both in falling order",
        paper="Boizard, El Haddad, Hudelot, Colombo: Universal Logit Distillation, 2024, arXiv:2402.12030",
    ),
}
