"""What the tasks with targets for each sample share: classes and numbers, any number of them side by side."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal

from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.spec.cards.evidence import TargetEvidence
from service.spec.data import DatasetSpec
from service.spec.report import Report
from service.spec.warning_message import WarningMessage
from worker.data import RawInputs, Split, SplitName
from worker.data.adopted import relabel_samples
from worker.data.data_warnings import equal_numbers_warnings, label_warnings
from worker.data.labelled import append_unlabelled, labelled_samples
from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.evaluation.disagreement import largest_disagreements
from worker.evaluation.evaluate import EvaluationResult, agreement, predict, score_by_teacher, score_outputs
from worker.evaluation.evidence import (
    GuessComparison,
    Interval,
    compare_with_guess,
    num_labelled,
    paired_interval,
    score_interval,
)
from worker.evaluation.metrics import target_agreement, target_metrics
from worker.evaluation.precision import Precision
from worker.evaluation.target_evidence import target_evidence
from worker.methods.layer_mapping import LayerMapping
from worker.targets import Targets, has_labels
from worker.tasks.card_text import one_line, outputs_read
from worker.tasks.task import Agreement, CardWords, Distillation, Measurement, SampleDisagreement, Task
from worker.training.criterion import BatchCriterion, BuildCriterion, extra_inputs, label_criterion

_MOST_DISAGREEMENTS = 12


class LabelledTask(Task):
    """A task whose networks map one sample to one row of outputs (W,), or to several of which some count."""

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        return labelled_samples(dataset, arrays, chosen)

    def append_unlabelled(self, labels: Tensor, inputs: RawInputs) -> Tensor:
        return append_unlabelled(labels, len(inputs))

    def learns_without_teacher(self, labels: Tensor) -> bool:
        return has_labels(labels)

    def relabel(self, labels: Tensor, before: Targets, after: Targets) -> Tensor:
        return relabel_samples(labels, before, after)

    def label_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        return label_warnings(split, targets)

    def score_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        return equal_numbers_warnings(split, targets)

    def prediction_mask(self, labels: Tensor) -> Tensor | None:
        """Tells which places of labels (B, …) or (B, …, M) are predictions, which the losses compare: bool (B, …).

        None where each sample is one.
        """
        return None

    def label_criterion(self, network: nn.Module, samples: Samples, targets: Targets) -> BatchCriterion:
        return label_criterion(network, samples, targets, prediction_mask=self.prediction_mask)

    def student_criterion(self, distillation: Distillation) -> BuildCriterion:
        mapping = distillation.map_layers()
        teacher_outputs = distillation.teacher_outputs(mapping)

        def build(network: nn.Module, samples: Samples) -> BatchCriterion:
            objective = mapping.objective(targets=distillation.targets, labels=samples.labels)
            return BatchCriterion(
                network,
                samples,
                objective,
                layers=mapping.student_layers,
                teacher_outputs=teacher_outputs,
                extra_inputs=extra_inputs(distillation.spec.method),
                prediction_mask=self.prediction_mask,
                is_mean=objective.is_mean,
            )

        return build

    def peer_criterion(self, network: nn.Module, samples: Samples, targets: Targets, mapping: LayerMapping) -> BatchCriterion:
        loss = mapping.objective(targets=targets, labels=samples.labels)
        return BatchCriterion(network, samples, loss, prediction_mask=self.prediction_mask, is_mean=loss.is_mean)

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
        return predict(
            network, samples, precision=precision, teacher_outputs=teacher_outputs, after_batch=after_batch, group=group
        )

    def label_rows(self, labels: Tensor) -> Tensor:
        """The labels of what :meth:`predict` gives, row by row."""
        mask = self.prediction_mask(labels)
        return labels if mask is None else labels[mask]

    def can_score(self, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> bool:
        return num_labelled(self.label_rows(labels), targets, only=only) > 0

    def score(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        return score_outputs(outputs, self.label_rows(labels), targets, only=only)

    def score_by_teacher(
        self, outputs: Tensor, teacher_outputs: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        return score_by_teacher(outputs, teacher_outputs, targets, only=only)

    def score_name(self, targets: Targets) -> Literal["accuracy", "score"]:
        return "accuracy" if targets.is_classification else "score"

    def score_is_share(self, targets: Targets) -> bool:
        return all(target.classes is not None and not target.is_multi_label for target in targets)

    def measure(self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Measurement:
        rows = self.label_rows(labels)
        return Measurement(
            self.score_labelled(outputs, labels, targets, only=only),
            metrics=target_metrics(outputs, rows, targets, only=only),
            rows=num_labelled(rows, targets, only=only),
            interval=score_interval(outputs, rows, targets, only=only),
        )

    def agreement(self, teacher: Tensor, student: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Agreement:
        by_target = target_agreement(teacher, student, targets, only=only)
        return Agreement(agreement(teacher, student, targets, only=only), by_target)

    def evidence(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> dict[str, TargetEvidence]:
        return target_evidence(outputs, self.label_rows(labels), targets, only=only)

    def disagreements(
        self, teacher: Tensor, student: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> list[SampleDisagreement]:
        rows = self.label_rows(labels)
        found = largest_disagreements(teacher, student, rows, targets, count=_MOST_DISAGREEMENTS, only=only)
        mask = self.prediction_mask(labels)
        if mask is None:
            return [SampleDisagreement(each.row, each) for each in found]
        places = mask.nonzero().tolist()
        return [SampleDisagreement(places[each.row][0], each, word=places[each.row][1]) for each in found]

    def paired_interval(self, first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
        return paired_interval(first, second, self.label_rows(labels), targets)

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
        return compare_with_guess(outputs, self.label_rows(labels), targets, only=only)

    def words(self, report: Report, *, is_own: bool) -> CardWords:
        kinds = list(report.data.targets.values())
        is_labels = outputs_read(report) == "labels"
        is_share = report.student.test_accuracy is not None
        return CardWords(
            score="accuracy" if is_share else "r2" if kinds == [None] else "f1" if is_labels else "score",
            agreement=_agreement_words(report),
            data=self.data_words(report),
            usage=self.usage(report, is_own=is_own),
        )

    def data_words(self, report: Report) -> str:
        """Says what is predicted, and in which units."""
        predicted = ", ".join(
            f"{one_line(name)} ({_predicted(classes, report.data.label_kinds.get(name))})"
            for name, classes in report.data.targets.items()
        )
        words = f"Predicted: {predicted}; the names are in `student/labels.json`."
        if "labels" in report.data.label_kinds.values():
            words += " A class of which a sample may have any number is predicted from a probability of 0.5 on, by a sigmoid."
        return words + (" Numbers are in the units of the data." if None in report.data.targets.values() else "")

    @abstractmethod
    def usage(self, report: Report, *, is_own: bool) -> str:
        """Writes the program that uses a student."""


def _predicted(classes: list[str] | None, kind: str | None) -> str:
    if classes is None:
        return "a number"
    match kind:
        case "labels":
            return f"any of {len(classes)} classes"
        case "probabilities":
            return f"{len(classes)} classes, learnt from their probabilities"
    return f"{len(classes)} classes"


def _agreement_words(report: Report) -> str:
    value, kinds = report.agreement or 0.0, {classes is None for classes in report.data.targets.values()}
    if kinds == {True}:
        return f"Its numbers correlate with its teacher's: {value:.4f}."
    if len(kinds) == 2:
        return f"It agrees with its teacher to {value:.4f}: the mean share of equal classes, and correlation of numbers."
    return f"It agrees with its teacher on {value:.2%} of the test split."
