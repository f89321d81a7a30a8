"""The interface of a task: what its samples, networks, losses and figures are. N samples, B batch, W outputs.

An implementation has no state. Outputs are what :meth:`Task.predict` gives, labels what the task's samples have; ``only`` names
the targets that count, None all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.cards.evidence import TargetEvidence
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.report import Report
from service.spec.tasks import TASKS, TaskInfo, TaskName
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, RawInputs, Split, SplitName
from worker.data.samples import Samples
from worker.data.tensors import Inputs
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.evaluation.disagreement import RowDisagreement
from worker.evaluation.evaluate import EVALUATION_BATCH, EvaluationResult
from worker.evaluation.evidence import GuessComparison, Interval
from worker.evaluation.precision import Precision
from worker.methods.layer_mapping import LayerMapping
from worker.models import LoadedNetwork, NetworkKind
from worker.targets import Targets
from worker.training.criterion import BuildCriterion, Criterion, TeacherOutputs
from worker.training.validation import Validation, ValidationTeacher


@dataclass(frozen=True)
class Measurement:
    """What the outputs of a network on some samples are worth."""

    result: EvaluationResult | None
    """None if no sample has a label to score by."""
    metrics: dict[str, dict[str, float]]
    """By target."""
    rows: int
    """Samples, or what else the task counts, that the score is of."""
    interval: Interval | None
    """95 % interval of the score; None where there is none."""


@dataclass(frozen=True)
class Agreement:
    """How far two networks' outputs on the same samples agree."""

    value: float | None
    """1 at most; None if they do not compare."""
    metrics: dict[str, dict[str, float]]
    """By target."""


@dataclass(frozen=True)
class SampleDisagreement:
    """One sample, or a word of it, of which student and teacher say different things."""

    sample: int
    said: RowDisagreement
    word: int | None = None


@dataclass(frozen=True)
class Written:
    """What a language model writes for one sample."""

    prompt: str
    reference: str
    """What follows in the data."""
    written: str


@dataclass(frozen=True)
class CardWords:
    """What a student's model card says in the words of its task."""

    score: str
    """The Hub's name of the score."""
    agreement: str
    """One sentence on student and teacher."""
    data: str
    """Sentences on what was predicted of what, and in which units."""
    usage: str
    """A program that loads the student and uses it, and runs as it stands beside the folder ``student``."""


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
    preprocessing: Preprocessing
    """Of the network that is trained."""
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
    network: ClassVar[NetworkKind]
    """How its networks are built, loaded and saved."""

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

    def fit_inputs(self, loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
        """The preprocessing of a teacher that was trained before, fitted to the data's samples.

        Raises:
            UnfitInputs: it cannot read them.
            JobFault: the network cannot read what it makes of them.
        """
        return loaded.preprocessing

    def settle_rows(self, data: Data, readers: Sequence[Preprocessing]) -> Data:
        """The data for networks that exist and read them each in its own way: what they must share stands in the data."""
        return data

    def check_method(self, spec: JobSpec, student: Preprocessing, teacher: Preprocessing) -> None:
        """Raises JobFault if the method does not fit what the student reads, and its first teacher."""
        return

    def teacher_warnings(self, loaded: LoadedNetwork, data: Data, *, source: str) -> tuple[WarningMessage, ...]:
        """What of the data such a teacher may read otherwise than they are meant."""
        return ()

    # Memory and operations, as the preflight counts them.

    teacher_runs_each_step: ClassVar[bool] = False
    """Whether a teacher computes its outputs in each step, even on samples that are the same in every epoch."""

    def chunk(self, network: nn.Module) -> tuple[int, int] | None:
        """Width and number of the outputs that are in memory at once; None where those of a whole batch are."""
        return None

    def step_outputs(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """The outputs of a training step's forward pass on inputs (B, …)."""
        outputs: Tensor = network(inputs)
        return outputs

    def infer(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """Computes of inputs (B, …) what inference holds for all samples of a batch at once."""
        outputs: Tensor = network(inputs)
        return outputs

    def evaluation_batch(self, inputs: Inputs) -> int:
        """Number of samples, each like those of ``inputs`` (B, …), that are evaluated at once."""
        return EVALUATION_BATCH

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

    # Figures.

    labelled_by_teacher: ClassVar[bool] = False
    """Whether the teacher's outputs take the labels' place, so that nothing tells what the teacher itself is worth."""
    is_chosen_by_loss: ClassVar[bool] = False
    """Whether the best weights are those of the least loss, where early stopping does not say."""
    rows_at_once: ClassVar[int] = 16
    """Rows of validation that are looked at between two looks at the clock."""

    @abstractmethod
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
        """Computes the network's outputs for all samples, in their order: see :func:`worker.evaluation.evaluate.predict`."""

    @abstractmethod
    def can_score(self, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> bool:
        """Whether any sample has a label to score by."""

    @abstractmethod
    def score(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        """Scores outputs against labels; samples without one are left out."""

    @abstractmethod
    def score_by_teacher(
        self, outputs: Tensor, teacher_outputs: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        """Scores outputs by those of a teacher, where there are no labels: the agreement, and the divergence as loss."""

    @abstractmethod
    def score_name(self, targets: Targets) -> Literal["accuracy", "score"]:
        """What the score is called among a training's metrics."""

    @abstractmethod
    def score_is_share(self, targets: Targets) -> bool:
        """Whether the score is a share of right answers, which is told in per cent as the accuracy."""

    def validation(self, samples: Samples, targets: Targets, *, teacher: ValidationTeacher | None = None) -> Validation:
        """How a training is evaluated on the validation split: by its labels, or by a teacher if it has none."""
        if teacher is not None:
            by_teacher = partial(self.score_by_teacher, teacher_outputs=teacher.outputs, targets=targets, only=teacher.teaches)
            return Validation(samples, self.predict, by_teacher, "agreement")
        score = partial(self.score, labels=samples.labels, targets=targets)
        return Validation(samples, self.predict, score, self.score_name(targets), is_chosen_by_loss=self.is_chosen_by_loss)

    def score_labelled(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult | None:
        """Scores outputs against labels; None if no sample has one."""
        return self.score(outputs, labels, targets, only=only) if self.can_score(labels, targets, only=only) else None

    @abstractmethod
    def measure(self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Measurement:
        """Measures outputs against labels in every way that the report has."""

    @abstractmethod
    def agreement(self, teacher: Tensor, student: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Agreement:
        """Compares a student's outputs with its teacher's."""

    def evidence(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> dict[str, TargetEvidence]:
        """What outputs show beside their figures, by target as in :attr:`Measurement.metrics`."""
        return {}

    def disagreements(
        self, teacher: Tensor, student: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> list[SampleDisagreement]:
        """Where a student's outputs differ most from its teacher's, the largest distance first; some at most."""
        return []

    def written(self, network: nn.Module, preprocessing: Preprocessing, split: Split, *, device: torch.device) -> list[Written]:
        """What a language model writes for each sample of a small split; of other networks nothing."""
        return []

    @abstractmethod
    def paired_interval(self, first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
        """Computes the 95 % interval of one network's score less another's on the same samples; None where there is none."""

    @abstractmethod
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
        """Compares a network's score with that of a constant guess, by target; empty where nothing can be told.

        ``training_rows`` reads so many rows of the training split, drawn at random, as the network does.
        """

    # One network in two number formats.

    def compared_outputs(self, network: nn.Module, samples: Samples) -> Tensor:
        """Computes outputs (M, W) on some samples, which tell two forms of a network apart."""
        return self.predict(network, samples)

    def compare_outputs(self, full: Tensor, held: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Agreement:
        """Compares the :meth:`compared_outputs` of a network with those of the same one in another format."""
        return self.agreement(full, held, targets, only=only)

    # Forms of a student, and words on it.

    def onnx_form(self, network: nn.Module, preprocessing: Preprocessing | None, data: Data) -> tuple[nn.Module, tuple[str, ...]]:
        """Returns the network as an ONNX file has it, and the names of its inputs: of one, or of tokens and their types.

        Raises TypeError if there is no such file.
        """
        raise TypeError(f"{type(network).__name__} has no ONNX form")

    @abstractmethod
    def words(self, report: Report, *, is_own: bool) -> CardWords:
        """Says what a student's model card says of it; ``is_own`` of one of the project's own networks."""
