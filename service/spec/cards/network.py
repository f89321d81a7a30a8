"""One network of a report card: where it comes from, how it was trained, and its figures."""

from typing import Any, Literal

from service.spec.cards.card import Card
from service.spec.cards.evidence import TargetEvidence
from service.spec.cards.speed import SpeedCard


class Latency(Card):
    """Median milliseconds of one forward pass, in the number format of the network's weights, on the job's device; networks are
    measured in turns."""

    batch_1: float
    """Of a batch of one sample."""
    batch_64: float
    """Of a batch of 64 samples."""


class TrainingCard(Card):
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
    gpu_seconds: float = 0.0
    """Those seconds times the number of GPUs; 0 on CPUs."""
    curves: dict[str, list[tuple[int, float]]] = {}
    """(step, value) of ``train_loss``, ``validation_loss`` and the score on the validation split; 200 of each at most."""


class DtypeCard(Card):
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


class StartCard(Card):
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


class AdapterCard(Card):
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


class NetworkCard(Card):
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
    evidence: dict[str, TargetEvidence] = {}
    """What its outputs on the test split show beside these, by target: intervals, classes, confusions, calibration."""
    latency_ms: Latency
    """Of this network."""
    speed: SpeedCard | None = None
    """What it costs to run; null for several teachers together, and in reports of before."""
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
