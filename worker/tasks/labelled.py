"""What the tasks with targets for each sample share: classes and numbers, any number of them side by side."""

from collections.abc import Iterator, Mapping
from functools import partial

from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.spec.data import DatasetSpec
from service.spec.warning_message import WarningMessage
from worker.data import RawInputs, Split, SplitName
from worker.data.adopted import relabel_samples
from worker.data.data_warnings import equal_numbers_warnings, label_warnings
from worker.data.labelled import append_unlabelled, labelled_samples
from worker.data.samples import Samples
from worker.evaluation.evaluate import predict, score_by_teacher, score_outputs
from worker.methods.layer_mapping import LayerMapping
from worker.targets import Targets, has_labels
from worker.tasks.task import Distillation, Task
from worker.training.criterion import BatchCriterion, BuildCriterion, extra_inputs, label_criterion
from worker.training.validation import Validation, ValidationTeacher


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

    def select_predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Selects a batch's predictions that count, (M, W), and their labels: here each sample is one."""
        return logits, labels

    def label_criterion(self, network: nn.Module, samples: Samples, targets: Targets) -> BatchCriterion:
        return label_criterion(network, samples, targets, select_predictions=self.select_predictions)

    def student_criterion(self, distillation: Distillation) -> BuildCriterion:
        mapping = distillation.map_layers()
        teacher_outputs = distillation.teacher_outputs(mapping)

        def build(network: nn.Module, samples: Samples) -> BatchCriterion:
            return BatchCriterion(
                network,
                samples,
                mapping.objective(targets=distillation.targets, labels=samples.labels),
                layers=mapping.student_layers,
                teacher_outputs=teacher_outputs,
                extra_inputs=extra_inputs(distillation.spec.method),
                select_predictions=self.select_predictions,
            )

        return build

    def peer_criterion(self, network: nn.Module, samples: Samples, targets: Targets, mapping: LayerMapping) -> BatchCriterion:
        loss = mapping.objective(targets=targets, labels=samples.labels)
        return BatchCriterion(network, samples, loss, select_predictions=self.select_predictions)

    def validation(self, samples: Samples, targets: Targets, *, teacher: ValidationTeacher | None = None) -> Validation:
        if teacher is not None:
            score = partial(score_by_teacher, teacher_outputs=teacher.outputs, targets=targets, only=teacher.teaches)
            return Validation(samples, predict, score, "agreement")
        score_by_labels = partial(score_outputs, labels=samples.labels, targets=targets)
        return Validation(samples, predict, score_by_labels, "accuracy" if targets.is_classification else "score")
