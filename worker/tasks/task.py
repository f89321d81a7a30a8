"""The interface of a task: what its samples, networks, losses and figures are. N samples, B batch, W outputs.

An implementation has no state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.tasks import TASKS, TaskInfo, TaskName
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, RawInputs, Split, SplitName
from worker.data.samples import Samples
from worker.distributed.ranks import ProcessGroup
from worker.methods.layer_mapping import LayerMapping
from worker.targets import Targets
from worker.training.criterion import BuildCriterion, Criterion, TeacherOutputs
from worker.training.validation import Validation, ValidationTeacher


@dataclass(frozen=True)
class Distillation:
    """A training with a teacher before it begins, and what its job offers to it; each function computes when it is called."""

    spec: JobSpec
    role: str
    """Of the network that is trained."""
    seed: int
    targets: Targets
    samples: Samples
    """The training split behind the network's preprocessing."""
    teacher: nn.Module
    """The first teacher, the only one of a method that reads its layers."""
    teacher_preprocessing: Preprocessing
    teacher_samples: Callable[[], Samples]
    """The training split behind the first teacher's preprocessing."""
    map_layers: Callable[[], LayerMapping]
    teacher_outputs: Callable[[LayerMapping], TeacherOutputs]
    """The outputs of all teachers, combined, with the first one's layers."""
    report: Callable[[str], Callable[[int], None]]
    """Starts a phase with a message, and returns what takes the number of samples done, and may raise to stop."""
    group: ProcessGroup


class Task(ABC):
    """What the networks of one task read, learn and are measured by."""

    name: ClassVar[TaskName]

    @property
    def info(self) -> TaskInfo:
        """What a spec of the task is checked by."""
        return TASKS[self.name]

    # Data.

    @abstractmethod
    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        """The splits that were chosen of a reader's arrays, and what is to be predicted. Raises UnusableData."""

    def append_unlabelled(self, labels: Tensor, inputs: RawInputs) -> Tensor:
        """Labels of a split, with those of ``inputs`` after them, which have none."""
        return labels.new_empty(len(labels) + len(inputs), *labels.shape[1:])

    def learns_without_teacher(self, labels: Tensor) -> bool:
        """Whether samples of these labels teach anything without a teacher's outputs."""
        return True

    def relabel(self, labels: Tensor, before: Targets, after: Targets) -> Tensor:
        """Labels of the targets ``before`` as those of the same targets ``after``, some of which have other classes."""
        return labels

    def label_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        """Rows of the split without a label, and classes without a row."""
        yield from ()

    def score_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        """Why a score of the split, validation or test, could not tell a good network from a bad one."""
        yield from ()

    @abstractmethod
    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        """Measures or trains the preprocessing of a network that the job trains, on the training split alone.

        A text network without ``tokenizer`` gets its teacher's preprocessing, ``teachers``.

        Raises:
            UnusableData: the training split is too small, or texts have neither a tokenizer nor a teacher's preprocessing.
        """

    # Training.

    @abstractmethod
    def label_criterion(self, network: nn.Module, samples: Samples, targets: Targets) -> Criterion:
        """The criterion of a network without a teacher."""

    @abstractmethod
    def student_criterion(self, distillation: Distillation) -> BuildCriterion:
        """Computes what comes before the first step, and returns what builds the student's criterion.

        Raises:
            JobFault: the teacher's outputs are not finite, or the method does not fit the two networks.
        """

    def peer_criterion(self, network: nn.Module, samples: Samples, targets: Targets, mapping: LayerMapping) -> Criterion:
        """The criterion of one of two networks that learn from each other."""
        raise TypeError(f"no two networks of {type(self).__name__} learn from each other")

    def label_by_teacher(self, data: Data, outputs: Callable[[Split], Tensor]) -> Data:
        """The data with the teacher's ``outputs`` on validation and test split as their labels, if the task has no others."""
        return data

    @abstractmethod
    def validation(self, samples: Samples, targets: Targets, *, teacher: ValidationTeacher | None = None) -> Validation:
        """How a training is evaluated on the validation split: by its labels, or by a teacher if it has none."""
