"""Classes of the words of texts: named entities, or whatever else is told of each word.

A network's outputs are (B, K, W), of which only those of real words count; predictions are of the M words of all rows. N samples,
B batch, K words of the longest row, W classes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from textwrap import dedent
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.formats.dataset_warnings import listed
from service.spec.architectures import Architecture
from service.spec.cards.evidence import TargetEvidence
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.report import Report
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, RawInputs, Split, SplitName, UnusableData
from worker.data.disk.mapped_rows import NamedRows
from worker.data.samples import Samples
from worker.data.tensors import in_memory
from worker.data.text.words import (
    NO_LABEL,
    NO_WORD,
    WordPreprocessing,
    append_unlabelled_words,
    train_word_preprocessing,
    word_samples,
)
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.evaluation.entities import (
    EntityCounts,
    are_iob2,
    count_entities,
    entity_intervals,
    f1_difference_interval,
    f1_interval,
)
from worker.evaluation.evaluate import EvaluationResult, predict
from worker.evaluation.evidence import GuessComparison, Interval, compare_with_guess
from worker.evaluation.metrics import classification_metrics
from worker.evaluation.precision import Precision
from worker.evaluation.target_evidence import target_evidence
from worker.models.token_classifiers import TokenClassifiers
from worker.targets import Target, Targets, label_loss
from worker.tasks.labelled import LabelledTask
from worker.tasks.task import CardWords, Measurement
from worker.tasks.texts import NO_TOKENIZER

_PIECE_ROWS = 4096
_USAGE = """\
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModelForTokenClassification.from_pretrained("student").eval()
    words = "some words , with punctuation apart .".split()
    inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        logits = student(**inputs).logits[0]
    places = inputs.word_ids()
    for index, word in enumerate(words):  # a word's class is that of its first piece
        print(word, student.config.id2label[int(logits[places.index(index)].argmax())])
    """


@dataclass(frozen=True)
class EntityComparison(GuessComparison):
    """F1 of entities beside that of finding none."""

    def __str__(self) -> str:
        low, high = self.interval
        interval = f"95% interval {low:.1%} to {high:.1%}"
        return f"an F1 of {self.score:.1%} of {self.rows:,} entities ({interval}), where finding none has 0"

    @property
    def reported_as(self) -> str:
        return "f1"


class TokenClassification(LabelledTask):
    """Networks that map words to classes. Of IOB2 tags the score is the F1 of entities, of others the accuracy of words."""

    name = "token-classification"
    network = TokenClassifiers("token-classification")

    # Data.

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        return word_samples(dataset, arrays, chosen)

    def append_unlabelled(self, labels: Tensor, inputs: RawInputs) -> Tensor:
        return append_unlabelled_words(labels, inputs)

    def label_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        (target,) = targets
        counted = _count_labels(split.labels, len(_classes(target)))
        if missing := counted.words - sum(counted.of_class):
            use = "teach by a teacher's outputs alone" if split.part == "train" else "are not scored"
            message = (
                f"{missing:,} of {counted.words:,} words of the {split.name} have no value of {target.name!r} and {use}; the "
                f"first: {split.place(counted.first_without)}"
            )
            yield WarningMessage(code="labels_missing", message=message)
        if split.part != "train" and any(counted.of_class):
            unseen = [name for name, count in zip(_classes(target), counted.of_class, strict=True) if not count]
            if unseen:
                message = (
                    f"{len(unseen)} of the {len(_classes(target))} classes of {target.name!r} have no word in the {split.name}, "
                    f"whose scores say nothing of them: {listed(unseen)}"
                )
                yield WarningMessage(code="class_without_rows", message=message)

    def score_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        yield from ()

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        if tokenizer is not None:
            return train_word_preprocessing(data.splits["train"].inputs, tokenizer)
        if not isinstance(teachers, WordPreprocessing):
            raise UnusableData(NO_TOKENIZER)
        return teachers

    # Training.

    def prediction_mask(self, labels: Tensor) -> Tensor:
        return labels != NO_WORD

    # Figures.

    def predict(
        self,
        network: nn.Module,
        samples: Samples,
        *,
        precision: Precision | None = None,
        teacher_outputs: Tensor | None = None,
        after_batch: Callable[[int], None] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Tensor:
        """Computes the outputs (M, W) of all words, row by row."""
        outputs = predict(
            network, samples, precision=precision, teacher_outputs=teacher_outputs, after_batch=after_batch, group=group
        )
        return outputs[_are_words(samples).to(outputs.device)]

    def score(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        return self._result(_count(outputs, labels, targets), outputs, labels, targets)

    def _result(self, counts: EntityCounts, outputs: Tensor, labels: Tensor, targets: Targets) -> EvaluationResult:
        loss = label_loss(targets, outputs.to(torch.float64), self.label_rows(labels).to(outputs.device))
        return EvaluationResult(score=counts.score().f1, loss=loss.item())

    def score_name(self, targets: Targets) -> Literal["accuracy", "score"]:
        return "accuracy" if self.score_is_share(targets) else "score"

    def score_is_share(self, targets: Targets) -> bool:
        return not are_iob2(targets.classes)

    def measure(self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Measurement:
        if not self.can_score(labels, targets, only=only):
            return Measurement(None, metrics={}, rows=0, interval=None)
        (target,) = targets
        counts, words = _count(outputs, labels, targets), classification_metrics(outputs, self.label_rows(labels))
        metrics = {target.name: words}
        if are_iob2(targets.classes):
            metrics[target.name] = counts.score()._asdict() | {f"word_{name}": value for name, value in words.items()}
            metrics |= {f"{target.name}: {type_}": counts.score(type_)._asdict() for type_ in counts.types}
        return Measurement(
            self._result(counts, outputs, labels, targets),
            metrics=metrics,
            rows=int((labels >= 0).sum()),
            interval=f1_interval(counts),
        )

    def evidence(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> dict[str, TargetEvidence]:
        lengths = (labels != NO_WORD).sum(dim=1).tolist()
        found = target_evidence(outputs, self.label_rows(labels), targets, only=only, lengths=lengths)
        if not are_iob2(targets.classes) or not found:
            return found
        (target,), counts = targets, _count(outputs, labels, targets)
        words = {f"word_{name}": interval for name, interval in found[target.name].intervals.items()}
        found[target.name].intervals = entity_intervals(counts) | words
        by_type = {type_: TargetEvidence(intervals=entity_intervals(counts, type_)) for type_ in counts.types}
        return found | {f"{target.name}: {type_}": evidence for type_, evidence in by_type.items()}

    def paired_interval(self, first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
        return f1_difference_interval(_count(first, labels, targets), _count(second, labels, targets))

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
        if not are_iob2(targets.classes):
            return compare_with_guess(outputs, self.label_rows(labels), targets, only=only)
        counts = _count(outputs, labels, targets)
        interval, rows = f1_interval(counts), int(counts.true.sum())
        if interval is None or not rows:
            return []
        (target,) = targets
        return [EntityComparison(target.name, counts.score().f1, interval, constant=0.0, rows=rows)]

    # Words.

    def words(self, report: Report, *, is_own: bool) -> CardWords:
        (classes,) = report.data.targets.values()
        return CardWords(
            score="f1" if are_iob2(classes or []) else "accuracy",
            agreement=f"It agrees with its teacher on {report.agreement or 0.0:.2%} of the test split's words.",
            data=self.data_words(report),
            usage=self.usage(report, is_own=is_own),
        )

    def usage(self, report: Report, *, is_own: bool) -> str:
        return dedent(_USAGE).rstrip()


def _classes(target: Target) -> tuple[str, ...]:
    return target.classes or ()


class _LabelCounts(NamedTuple):
    words: int
    of_class: list[int]
    first_without: int
    """The first row with a word without a label."""


def _count_labels(labels: Tensor, num_classes: int) -> _LabelCounts:
    """Counts the words of labels (N, K), which need not be in memory, by their labels."""
    words, of_class, first_without = 0, torch.zeros(num_classes, dtype=torch.int64), None
    for number, piece in enumerate(torch.split(labels, _PIECE_ROWS)):
        words += int((piece != NO_WORD).sum())
        of_class += torch.bincount(piece[piece >= 0], minlength=num_classes)
        if first_without is None and len(without := (piece == NO_LABEL).any(dim=1).nonzero()):
            first_without = number * _PIECE_ROWS + int(without[0])
    return _LabelCounts(words, of_class.tolist(), first_without or 0)


def _are_words(samples: Samples) -> Tensor:
    """Which places of rows are words: (N, K)."""
    inputs = samples.inputs
    if isinstance(inputs, NamedRows):
        places = inputs.of["first_pieces"]
        return torch.arange(places.width) < torch.from_numpy(places.lengths).unsqueeze(1)
    inputs = in_memory(inputs)
    if isinstance(inputs, Tensor):
        raise TypeError("the samples of this task are rows of words")
    return inputs["first_pieces"] >= 0


def _count(outputs: Tensor, labels: Tensor, targets: Targets) -> EntityCounts:
    """Counts the entities in the outputs (M, W) and the labels (N, K) of the same rows."""
    names: list[str | None] = [*targets.classes, None]  # the last one for -1, no label
    is_word = labels != NO_WORD
    lengths, each = is_word.sum(dim=1).tolist(), (outputs.argmax(dim=1).cpu(), labels[is_word].cpu())
    predicted, true = ([[names[index] for index in row.tolist()] for row in torch.split(words, lengths)] for words in each)
    return count_entities(predicted, true, targets.classes)
