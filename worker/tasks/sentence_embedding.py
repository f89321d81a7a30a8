"""Embeddings of texts, learnt from a teacher's. N texts, D and E widths.

Invariant: the teacher's embeddings (N, E) stand in the labels' place, so that a network is measured by how it resembles its
teacher, and a teacher by nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from textwrap import dedent
from typing import Literal

from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.spec.architectures import Architecture
from service.spec.cards.evidence import TargetEvidence
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.report import Report
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, Split, SplitName
from worker.data.data_warnings import few_texts_warnings
from worker.data.samples import Samples
from worker.data.text.texts_alone import samples_of_texts
from worker.evaluation.embedding_evidence import embedding_evidence, likeness_difference_interval, likeness_interval
from worker.evaluation.evaluate import EvaluationResult
from worker.evaluation.evidence import GuessComparison, Interval
from worker.evaluation.metrics import embedding_metrics
from worker.methods.embedding import similarity_correlation
from worker.models import LoadedNetwork
from worker.models.text_encoders import TextEncoders
from worker.targets import Targets
from worker.tasks.labelled import LabelledTask
from worker.tasks.task import Agreement, CardWords, Measurement, SampleDisagreement
from worker.tasks.texts import choose_text_preprocessing, fit_texts, texts_onnx_form

_USAGE = """\
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModel.from_pretrained("student").eval()
    inputs = tokenizer(["some text", "another"], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = student(**inputs).last_hidden_state
    counted = inputs["attention_mask"].unsqueeze(-1)
    embeddings = (states * counted).sum(dim=1) / counted.sum(dim=1)  # the mean of the tokens, as 1_Pooling/config.json says
    print(torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1], dim=0).item())
    """


class SentenceEmbedding(LabelledTask):
    """Text encoders, whose labels are their teacher's embeddings (N, E): the one target of each sample."""

    name = "sentence-embedding"
    labelled_by_teacher = True
    network = TextEncoders("sentence-embedding")

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        return samples_of_texts(chosen), Targets(())

    def learns_without_teacher(self, labels: Tensor) -> bool:
        return True

    def score_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        return few_texts_warnings(split)

    def fit_inputs(self, loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
        return fit_texts(loaded.preprocessing, data)

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        return choose_text_preprocessing(data, tokenizer=tokenizer, teachers=teachers)

    def label_by_teacher(self, data: Data, outputs: Callable[[Split], Tensor]) -> Data:
        # Those of the training split are the teacher's outputs that the criterion reads.
        splits = {
            name: split if name == "train" else replace(split, labels=outputs(split).cpu()) for name, split in data.splits.items()
        }
        return replace(data, splits=splits)

    def can_score(self, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> bool:
        return True

    def score(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        """Correlates all pairs' similarities with the teacher's; the loss is 1 less the score."""
        correlation = similarity_correlation(outputs, labels.to(outputs.device)).item()
        return EvaluationResult(score=correlation, loss=1 - correlation)

    def score_by_teacher(
        self, outputs: Tensor, teacher_outputs: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        return self.score(outputs, teacher_outputs, targets)

    def score_name(self, targets: Targets) -> Literal["accuracy", "score"]:
        return "score"

    def score_is_share(self, targets: Targets) -> bool:
        return False

    def measure(self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Measurement:
        metrics = {"embedding": embedding_metrics(outputs, labels)}
        interval = likeness_interval(outputs, labels)
        return Measurement(self.score(outputs, labels, targets), metrics, rows=len(outputs), interval=interval)

    def agreement(self, teacher: Tensor, student: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Agreement:
        metrics = {"embedding": embedding_metrics(student, teacher)}
        return Agreement(similarity_correlation(teacher, student).item(), metrics)

    def evidence(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> dict[str, TargetEvidence]:
        return {"embedding": embedding_evidence(outputs, labels)}

    def disagreements(
        self, teacher: Tensor, student: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> list[SampleDisagreement]:
        return []  # two vectors say nothing that could be told

    def paired_interval(self, first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
        return likeness_difference_interval(first, second, labels)

    def compare_with_guess(
        self,
        outputs: Tensor,
        labels: Tensor,
        targets: Targets,
        *,
        network: nn.Module,
        training_rows: Callable[[int], Samples],
        only: Collection[str] | None = None,
    ) -> list[GuessComparison]:
        return []

    def onnx_form(self, network: nn.Module, preprocessing: Preprocessing | None, data: Data) -> tuple[nn.Module, tuple[str, ...]]:
        return texts_onnx_form(network, preprocessing, data)

    def words(self, report: Report, *, is_own: bool) -> CardWords:
        correlation = report.agreement or 0.0
        return CardWords(
            score="score",
            agreement=f"How alike it holds two texts correlates with how alike its teacher does: {correlation:.4f}.",
            data="The score is the correlation of all pairs' cosine similarities with the teacher's.",
            usage=self.usage(report, is_own=is_own),
        )

    def usage(self, report: Report, *, is_own: bool) -> str:
        return dedent(_USAGE).rstrip()
