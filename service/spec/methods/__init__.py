"""The distillation methods that may stand in a spec.

A method is two files: here its class, with parameters, defaults, bounds, paper and formula, and in ``worker.methods`` its loss.
``METHODS`` is the whole list; tests compare it with the unions of this module and with the worker's losses. A spec names one
method, or several as ``terms``, whose losses are summed.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

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
from service.spec.methods.terms import BetweenLayers, Labels, Layers, LossTerm, Method, Weighted
from service.spec.strict import StrictModel
from service.spec.tasks import TASKS, TaskName

__all__ = [
    "METHODS",
    "OF_TOKENS",
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
    "LossTerm",
    "Method",
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


_SUM = "terms: […]"


def _tag(document: Any) -> Any:
    """Reads the tag of a document's method; a document without a name is ``soft-targets``, or a sum if it has ``terms``."""
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
"""Methods that are more than a loss, and therefore no term of a sum."""


class SumOfTerms(StrictModel):
    """Several methods at once: the sum of their losses, each by its weight. Labels count where a term says so."""

    terms: Annotated[list[Term], Field(min_length=1, max_length=16)]
    """Methods by name with their parameters, and ``labels``. In a sum a method's ``label_weight`` is 0 unless it is given."""

    @model_validator(mode="before")
    @classmethod
    def _labels_only_where_said(cls, document: Any) -> Any:
        if not isinstance(document, dict) or not isinstance(document.get("terms"), list):
            return document
        for term in document["terms"]:
            method = METHODS.get(name) if isinstance(term, dict) and isinstance(name := term.get("name"), str) else None
            if method is not None and method.stands_alone:
                raise ValueError(f"{term['name']} is more than a loss and no term of a sum: name it as the method itself")
        terms = [
            {"label_weight": 0.0, **term} if isinstance(term, dict) and term.get("name") != "labels" else term
            for term in document["terms"]
        ]
        return {**document, "terms": terms}


MethodSpec = Annotated[_Single | _OfTokens | _Whole | Annotated[SumOfTerms, Tag(_SUM)], Discriminator(_tag)]


def terms_of(method: MethodSpec) -> list[Any]:
    """The terms of a sum, or the one method."""
    return list(method.terms) if isinstance(method, SumOfTerms) else [method]


def tasks_of(method: type[Method]) -> list[TaskName]:
    """The tasks that a method fits, in the order of ``TASKS``."""
    return [task for task, info in TASKS.items() if method.kind in info.methods]


def method_names(method: MethodSpec) -> list[str]:
    """The name of the method, or of each of the terms that are summed."""
    return [term.name for term in terms_of(method)]


METHODS: dict[str, type[Method]] = {
    "soft-targets": SoftTargets,
    "distillation-network": DistillationNetwork,
    "multi-task": MultiTask,
    "dkd": DecoupledDistillation,
    "dist": CorrelationDistillation,
    "logit-standardization": LogitStandardization,
    "ofa": OneForAll,
    "teacher-free": TeacherFree,
    "fitnet": FitNet,
    "attention-transfer": AttentionTransfer,
    "similarity-preserving": SimilarityPreserving,
    "nst": NeuronSelectivity,
    "vid": VariationalInformation,
    "review": KnowledgeReview,
    "distilbert": DistilBert,
    "rkd": RelationalDistillation,
    "pkt": ProbabilisticTransfer,
    "correlation-congruence": CorrelationCongruence,
    "crd": ContrastiveDistillation,
    "embedding": EmbeddingDistillation,
    "deep-mutual": DeepMutual,
    "born-again": BornAgain,
    "teacher-assistant": TeacherAssistant,
    "forward-kl": ForwardKl,
    "reverse-kl": ReverseKl,
    "jsd": JensenShannon,
    "sequence": SequenceLevel,
    "on-policy": OnPolicy,
    "uld": UniversalLogit,
}
"""Every method by its name in a spec, in the order of the catalogue."""

OF_TOKENS = frozenset(name for name, method in METHODS.items() if method.kind == "next-tokens")
"""Names of the methods of causal language models, which no other task has."""
