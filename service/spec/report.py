"""The report card of a finished job: what ``report.json`` holds, and what the API and the client answer.

Every figure that a job's users decide on is here with what it was measured on: the weights that count are those of the best
evaluation on the validation split, and their accuracy is that on the test split, which took no part in the choice.
"""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from service.spec.canvas import ImageFit
from service.spec.tasks import TaskName
from service.spec.verdict import verdict
from service.spec.warning_message import WarningMessage


class _Card(BaseModel):
    """A part of the report. JSON has no NaN: a figure that is not finite is an error."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        # The published schema permits other fields: a later service may add some.
        json_schema_extra=lambda schema: schema.pop("additionalProperties", None),
    )


class Latency(_Card):
    """Median milliseconds of one forward pass, in the number format of the network's weights, on the job's device; networks are
    measured in turns."""

    batch_1: float
    """Of a batch of one sample."""
    batch_64: float
    """Of a batch of 64 samples."""


class TrainingCard(_Card):
    """How this job trained a network."""

    steps: int
    """Optimizer steps."""
    epochs: int
    """Epochs begun; the last may be cut short by ``max_steps``."""
    stopped_early: bool
    """Whether early stopping ended the training."""
    best_step: int
    """The step after which the weights that count were taken."""
    train_loss: float
    """Mean over the last window of steps."""
    seconds: float
    """Over all attempts; work that a crash undid does not count."""
    samples_per_second: float
    """Samples that the training saw, over its seconds."""


class DtypeCard(_Card):
    """The number format of a network's weights, and how far a given one answers otherwise than its files."""

    format: Literal["fp32", "bf16", "fp16", "int8", "int4"]
    """Of the weights in memory; of ``int8`` and ``int4`` those of the hidden layers' products, and the rest is bf16."""
    files: Literal["fp32", "bf16", "fp16"]
    """The format of most weights in its files."""
    bytes: int
    """Of all weights in memory."""
    layers: int | None = None
    """Linear layers whose weights are integers; null for a format of floats."""
    layers_left_out: int | None = None
    """Linear layers that are not: of the outputs, outside the hidden layers, and of sizes that the format does not take."""
    rows: int | None = None
    """Rows of the validation split, or tokens, that the outputs were compared on; null where nothing is rounded."""
    compared_with: Literal["fp32", "bf16", "fp16"] | None = None
    """The format that the outputs were compared with: the files' own, and of numbers fp32; null where nothing is rounded."""
    largest_difference: float | None = None
    """Of an output from that in the format that it is compared with; a share of the largest output where that is above 1."""
    agreement: float | None = None
    """Of the outputs, as between student and teacher."""
    kl_divergence: float | None = None
    """From that format, in nats; the largest of several targets. Null of numbers and embeddings."""


class StartCard(_Card):
    """The network that exists from which a network of the job comes, and what became of its output layer, the head."""

    source: str
    """In the spec's words, of the Hub at its commit."""
    revision: str | None
    """What it was resolved to: a commit of the Hub, or a SHA-256 over the files of a folder; null where that was not noted."""
    head: Literal["kept", "mapped", "new"]
    """``kept`` as it was; ``mapped``: its own outputs by their names, in the job's order; ``new``: drawn anew."""
    made: list[str]
    """Of a new head: its weights, which the job alone has trained."""
    dropped: list[str]
    """The network's own outputs that the job has no use for."""
    tuned: bool
    """Whether the job trained it; a teacher that it did not train teaches as it is."""
    licence: str | None = None
    """As its card says; what has its weights has it too. Null where that says nothing."""


class AdapterCard(_Card):
    """The adapter that a network was trained as, which its own folder holds merged."""

    name: str
    """As in the spec."""
    variant: str
    """As in the spec."""
    rank: int
    """Of each update."""
    alpha: float
    """By which updates are scaled."""
    targets: int
    """Layers that have an update."""
    parameters: int
    """That were trained: of the updates, and of layers that the network was not found with."""
    bytes: int
    """Size of ``adapter_model.safetensors``."""
    largest_difference: float
    """Of an output of the adapter's folder, with the network that it is for, from the merged one's, on some samples; a share of
    the largest output where that is above 1."""


class NetworkCard(_Card):
    """One network. *best* is the best evaluation on the validation split, *last* the one after the last step."""

    source: str
    """Where the network comes from, in the spec's words."""
    architecture: dict[str, Any] | None
    """As in the spec; null for a network that this job did not build."""
    parameters: int
    """Number of parameters."""
    bytes: int
    """Size of its ``model.safetensors``."""
    test_score: float | None
    """Of the best weights, the figure to quote: accuracy; of a number the share of its variance that is explained; of several
    targets their mean. Null where the test split has no labels."""
    test_rows: int | None = None
    """Samples of the test split that ``test_score`` is of: those with a label of any target; of a language model tokens."""
    test_interval: tuple[float, float] | None = None
    """95 % interval of ``test_score`` by the number of these samples; null where there is none, as of tokens."""
    test_accuracy: float | None
    """The same, where every target has classes."""
    test_loss: float | None
    """Of the best weights, the task's own loss; of numbers in units of their variance in training. Null without labels."""
    test_accuracy_last: float | None
    """Of the last weights; null for a network that this job did not train."""
    validation_score: float | None
    """Of the best weights on the validation split; null where that has no labels."""
    validation_accuracy: float | None
    """The same, where every target has classes."""
    validation_loss: float | None
    """Of the best weights on the validation split, the task's own loss; null without labels."""
    validation_accuracy_last: float | None
    """Of the last weights; null for a network that this job did not train."""
    metrics: dict[str, dict[str, float]]
    """Of the best weights on the test split, by target. Of classes: accuracy, top_5_accuracy, macro_f1, calibration_error, loss;
    of any of several classes: mean_average_precision, micro_f1, macro_f1, exact_match, loss; of a number: mse and mae in
    the data's unit, pearson, spearman, r2."""
    latency_ms: Latency
    """Of this network."""
    training: TrainingCard | None
    """Null for a network that this job did not train."""
    dtype: DtypeCard | None = None
    """The number format of its weights; null for float32, in which the files hold them as well."""
    start: StartCard | None = None
    """Null for a network that began with random weights or with its teacher's layers, and of several teachers together."""
    adapter: AdapterCard | None = None
    """Null for a network that was trained whole, or not at all; the control has the student's, which is not written."""


class TeacherCard(NetworkCard):
    """One teacher of several."""

    weight: float
    """Of its outputs in the mean."""
    targets: list[str] | None
    """Those that it teaches, and that its figures are of; null for all."""


class Interval(_Card):
    """A figure over seed replicates."""

    mean: float
    """Over the seeds."""
    half_width: float | None
    """Of the mean's 95 % confidence interval, by Student's t; null for a single seed."""
    values: list[float]
    """By seed, in their order."""


class SeedsCard(_Card):
    """The student's test score over several seeds: of its initial weights and the order of its samples, on the same data."""

    seeds: list[int]
    """In the spec's order."""
    student: Interval
    """Test scores of the students."""
    control: Interval | None
    """Test scores of the controls; null without a control."""
    gain: Interval | None
    """Of the differences by seed, student less control; null without a control."""


class ExportCard(_Card):
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


class BiasCard(_Card):
    """How the biases of the student's outputs were set after its training, as ``evaluation.correct_bias`` says."""

    rows: int
    """Samples on which its mean probability of each class was made its teacher's."""
    are_transfer: bool
    """Whether they are the transfer rows; else they are the training split."""
    largest_difference_before: float
    """Of the student's mean probability of a class from its teacher's."""
    largest_difference_after: float
    """The same, with the new biases."""


class Compression(_Card):
    """Teacher over student."""

    parameters: float
    """Ratio of the numbers of parameters."""
    bytes: float
    """Ratio of the sizes of the weights."""
    latency_batch_1: float
    """Ratio of the latencies of a batch of one sample."""
    latency_batch_64: float
    """Ratio of the latencies of a batch of 64 samples."""


class DataCard(_Card):
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


class EnvironmentCard(_Card):
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


class Report(_Card):
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
