"""The report card of a finished job: what ``report.json`` holds, and what the API and the client answer.

Every figure that a job's users decide on is here with what it was measured on: the weights that count are those of the best
evaluation on the validation split, and their accuracy is that on the test split, which took no part in the choice.
"""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import model_validator

from service.spec.canvas import ImageFit
from service.spec.cards.card import Card
from service.spec.cards.network import NetworkCard, TeacherCard
from service.spec.cards.samples import Disagreement, Generation
from service.spec.require import RequiredFigure
from service.spec.tasks import TaskName
from service.spec.verdict import verdict
from service.spec.warning_message import WarningMessage


class Interval(Card):
    """A figure over seed replicates."""

    mean: float
    """Over the seeds."""
    half_width: float | None
    """Of the mean's 95 % confidence interval, by Student's t; null for a single seed."""
    values: list[float]
    """By seed, in their order."""


class SeedsCard(Card):
    """The student's test score over several seeds: of its initial weights and the order of its samples, on the same data."""

    seeds: list[int]
    """In the spec's order."""
    student: Interval
    """Test scores of the students."""
    control: Interval | None
    """Test scores of the controls; null without a control."""
    gain: Interval | None
    """Of the differences by seed, student less control; null without a control."""


class ExportCard(Card):
    """Another form of the student, as a file."""

    name: str
    """The file's name."""
    bytes: int
    """Its size."""
    largest_difference: float | None
    """From the student's outputs, on some samples; a share of the largest output where that is above 1; null where one is NaN."""
    test_score: float | None
    """Of this form on the test split, run by onnxruntime; null where that has no labels."""
    metrics: dict[str, dict[str, float]]
    """By target, on the test split, run by onnxruntime."""
    agreement: float
    """With the student itself, on the test split."""


class BiasCard(Card):
    """How the biases of the student's outputs were set after its training, as ``evaluation.correct_bias`` says."""

    rows: int
    """Samples on which its mean probability of each class was made its teacher's."""
    are_transfer: bool
    """Whether they are the transfer rows; else they are the training split."""
    largest_difference_before: float
    """Of the student's mean probability of a class from its teacher's."""
    largest_difference_after: float
    """The same, with the new biases."""


class Compression(Card):
    """Teacher over student."""

    parameters: float
    """Ratio of the numbers of parameters."""
    bytes: float
    """Ratio of the sizes of the weights."""
    latency_batch_1: float
    """Ratio of the latencies of a batch of one sample."""
    latency_batch_64: float
    """Ratio of the latencies of a batch of 64 samples."""


class DataCard(Card):
    """The data that the networks were trained and measured on."""

    source: str
    """As in the spec."""
    transfer: str | None = None
    """Source of the transfer rows; null without any."""
    rows: dict[str, int]
    """Samples by split; ``transfer`` are those without labels that stood beside the training split."""
    labelled_rows: dict[str, dict[str, int]] = {}
    """Samples with a label, by split and target: what the split's figures are of."""
    targets: dict[str, list[str] | None]
    """The classes of each target; null for a number."""
    label_kinds: dict[str, Literal["labels", "probabilities"]] = {}
    """Of targets whose rows have lists: any of the classes, each predicted from a probability of 0.5 on, or probabilities."""
    classes: list[str]
    """The names of the student's outputs."""
    read: str = "into memory at once"
    """Whether the samples were read into memory, or from shards as they were needed, and why."""
    input_shape: list[int] | None
    """Of a sample as the student reads it: channels, height, width of an image; null for texts, whose length varies."""
    chats: bool = False
    """Whether the samples are chats, which the student writes by its chat template."""
    pairs: bool = False
    """Whether the samples are pairs of texts, which the student reads together."""
    pixel_range: list[float] | None = None
    """Black and white of the images; null where their values do not tell, as of standardised ones, and for other inputs."""
    image_fit: ImageFit | None = None
    """The size that images of several were fitted to, and how; null for images that came in one size, and for other inputs."""


class EnvironmentCard(Card):
    """What the job ran on. On a CPU, the same spec, versions and threads give the same student, bit for bit."""

    device: str
    """The GPU's name, or ``cpu``."""
    threads: int
    """Threads of one PyTorch operation."""
    python: str
    """Version."""
    torch: str
    """Version."""
    platform: str
    """Operating system and processor."""
    transformers: str = ""
    """Version."""
    cuda: str | None = None
    """Version that PyTorch was built with; null on a CPU."""
    gpus: int = 0
    """Number of GPUs that trained side by side."""
    memory_gib: float | None = None
    """Of the GPU, or of the host where it ran on its CPU; null where that is unknown."""


class GateCard(Card):
    """One gate of the spec's ``require``."""

    figure: RequiredFigure
    """As in the spec."""
    asked: str
    """A comparison, such as ``>=0.97``."""
    measured: float | None
    """What was compared; null where it was not measured, which holds no gate."""
    held: bool
    """Whether the student has it."""
    message: str
    """The same in words."""


class Report(Card):
    """The report card of a finished job."""

    format: int = 2
    """Goes up when a field changes its meaning."""
    job_id: str
    """The job that this report is of."""
    name: str
    """The job's name when it was submitted."""
    task: TaskName
    """As in the spec."""
    created_at: datetime
    """When the networks had been measured."""
    method: dict[str, Any]
    """As in the spec, with all of its parameters."""
    data: DataCard
    """The data."""
    teacher: NetworkCard
    """Of several teachers, all of them as one; their parameters, bytes and latencies are summed."""
    teachers: list[TeacherCard] = []
    """Each of several teachers, in the spec's order; empty where there is one."""
    chain: dict[str, NetworkCard] = {}
    """The networks between teacher and student, by role and in order; each was distilled from the one before."""
    student: NetworkCard
    """The student."""
    control: NetworkCard | None
    """The same student, trained without the teacher for as many steps; from the same initial weights where these are random."""
    score_with_teacher: float | None = None
    """The student's test score while it reads its teacher's output, by ``distillation-network``; ``test_score`` is without."""
    ensemble_score: float | None = None
    """Test score of student and chain as an ensemble, where ``born-again`` asks for it."""
    agreement: float | None
    """Share of the test split on which student and teacher choose the same class; of several targets the mean. Of language models
    the share of tokens, null where the two have different tokenizers."""
    chosen_by: Literal["score", "agreement"] = "score"
    """What the student's best weights were chosen by on the validation split: the score against its labels, or, where it has
    none, the agreement with the teacher."""
    validation_agreement: float | None = None
    """With the teacher on the validation split, where that chose the weights: of a number R² with the teacher's outputs as the
    truth, which a shift or another scale lowers, unlike the correlation in ``agreement``."""
    bias: BiasCard | None = None
    """Null where the biases are as they were learned."""
    agreement_by_target: dict[str, dict[str, float]]
    """Of classes: agreement, and kl_divergence of the student from its teacher; of a number: as ``metrics``, from the teacher."""
    gain: float | None
    """The student's test score less the control's, over several seeds the mean; null without a control, or without labels to
    score them by."""
    gain_interval: tuple[float, float] | None = None
    """95 % interval of ``gain``: over seeds by their spread, of one seed by the test split's samples, on which both are measured;
    where it holds 0 no difference is shown. Null where there is none."""
    gain_seeds: int = 1
    """Seeds that ``gain`` is the mean of."""
    over_teacher: float | None = None
    """The student's test score less the teacher's, over several seeds the mean; null where no labels compare the two."""
    over_teacher_interval: tuple[float, float] | None = None
    """95 % interval of ``over_teacher``, as that of ``gain``. Null where there is none."""
    compression: Compression
    """How much smaller and faster the student is."""
    exports: list[ExportCard] = []
    """The student's other forms."""
    seeds: SeedsCard | None = None
    """Null where the spec names no seeds."""
    disagreements: list[Disagreement] = []
    """Of the test split where student and teacher differ most, 12 at most; the first differs most."""
    generations: list[Generation] = []
    """What language models write for prompts of the test split, as many as ``evaluation.generations`` says."""
    load: str = ""
    """Four lines of Python that load the student from its folder."""
    require: list[GateCard] = []
    """The gates of the spec's ``require``; empty where it has none."""
    accepted: bool | None = None
    """Whether all of them are held; null without any."""
    warnings: list[WarningMessage] = []
    """What to know before the student is used; empty where nothing was found."""
    environment: EnvironmentCard
    """What the job ran on."""
    verdict: str = ""
    """The whole in one sentence; of a report without one, made of its figures."""

    @model_validator(mode="after")
    def _has_a_verdict(self) -> Self:
        if not self.verdict:
            self.verdict = verdict(self.model_dump(mode="json"))
        return self

    def headline(self) -> dict[str, Any]:
        """The few figures that a job carries as its ``result``."""

        def brief(card: NetworkCard) -> dict[str, Any]:
            figures = {"test_score": card.test_score, "test_accuracy": card.test_accuracy}
            return {**figures, "parameters": card.parameters, "bytes": card.bytes}

        return {
            "verdict": self.verdict,
            "accepted": self.accepted,
            "not_accepted": [gate.message for gate in self.require if not gate.held],
            "teacher": brief(self.teacher),
            "student": brief(self.student),
            "control": brief(self.control) if self.control else None,
            "agreement": self.agreement,
            "chosen_by": self.chosen_by,
            "compression": self.compression.parameters,
            "gain": self.gain,
            "gain_interval": self.gain_interval and list(self.gain_interval),
            "gain_seeds": self.gain_seeds,
            "over_teacher": self.over_teacher,
            "over_teacher_interval": self.over_teacher_interval and list(self.over_teacher_interval),
            "test_rows": self.student.test_rows,
            "warnings": [warning.model_dump() for warning in self.warnings],
        }
