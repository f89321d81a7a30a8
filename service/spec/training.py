"""How a network is trained: length, augmentation, optimizer, schedule, precision, seed, checkpoints."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.spec.adapters import ModulePath
from service.spec.augment import Augment
from service.spec.strict import StrictModel

LearningRate = Annotated[float, Field(gt=0, le=1000)]
WeightDecay = Annotated[float, Field(ge=0, le=10)]
Share = Annotated[float, Field(ge=0, lt=1)]
ClassName = Annotated[str, Field(min_length=1, max_length=1300)]
ClassWeight = Annotated[float, Field(gt=0, le=1e6)]


class AdamW(StrictModel):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    """Which optimizer this is."""
    learning_rate: LearningRate = 0.003
    """The highest learning rate; the schedule sets that of each step."""
    weight_decay: WeightDecay = 0.01
    """Taken off the weights at each step, in shares of the learning rate."""
    beta1: Share = 0.9
    """Decay of the mean of the gradients."""
    beta2: Share = 0.999
    """Decay of the mean of their squares."""


class Sgd(StrictModel):
    """Stochastic gradient descent with momentum; the optimizer of the CIFAR distillation tables."""

    name: Literal["sgd"]
    """Which optimizer this is."""
    learning_rate: LearningRate = 0.05
    """The highest learning rate; the schedule sets that of each step."""
    momentum: Share = 0.9
    """Share of the last update that the next one keeps."""
    weight_decay: WeightDecay = 5e-4
    """Share of the weights that is added to their gradient."""
    nesterov: bool = False
    """Whether the gradient is that of the place where the momentum leads."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamW8bit(StrictModel):
    """AdamW with two moments of 8 bits in blocks (Dettmers et al., 2021, arXiv:2110.02861)."""

    name: Literal["adamw-8bit"]
    """Which optimizer this is."""
    learning_rate: LearningRate = 0.003
    """The highest learning rate; the schedule sets that of each step."""
    weight_decay: WeightDecay = 0.01
    """Taken off the weights at each step, in shares of the learning rate."""
    beta1: Share = 0.9
    """Decay of the mean of the gradients."""
    beta2: Share = 0.999
    """Decay of the mean of their squares."""


class Adafactor(StrictModel):
    """Adam without momentum, which keeps a row and a column for a matrix (Shazeer & Stern, 2018, arXiv:1804.04235)."""

    name: Literal["adafactor"]
    """Which optimizer this is."""
    learning_rate: LearningRate = 0.01
    """The highest learning rate, in shares of each weight's own size; the schedule sets that of each step."""
    weight_decay: WeightDecay = 0.0
    """Taken off the weights at each step, in shares of the learning rate."""


class Muon(StrictModel):
    """Momentum made orthogonal, for the matrices of the body; AdamW for all else (Jordan et al., 2024)."""

    name: Literal["muon"]
    """Which optimizer this is."""
    learning_rate: LearningRate = 0.02
    """The highest learning rate of the matrices; the schedule sets that of each step."""
    momentum: Share = 0.95
    """Share of the last update that the next one keeps."""
    weight_decay: WeightDecay = 0.1
    """Taken off the weights at each step, in shares of the learning rate."""
    adamw_learning_rate: LearningRate = 0.003
    """The highest learning rate of embeddings, heads, norms and biases."""


Optimizer = Annotated[AdamW | AdamW8bit | Sgd | Adafactor | Muon, Field(discriminator="name")]


class Constant(StrictModel):
    """The learning rate stays as it is."""

    name: Literal["constant"]
    """Which schedule this is."""


class Cosine(StrictModel):
    """Linear warm-up, then half a cosine down to 0 (Loshchilov & Hutter, 2017)."""

    name: Literal["cosine"]
    """Which schedule this is."""
    warmup_fraction: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""


class Linear(StrictModel):
    """Linear warm-up, then linearly down to 0, as most networks are fine-tuned (Devlin et al., 2019, arXiv:1810.04805)."""

    name: Literal["linear"]
    """Which schedule this is."""
    warmup_fraction: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""


class OneCycle(StrictModel):
    """Up to the learning rate by half a cosine, then down to almost 0 by another (Smith & Topin, 2018)."""

    name: Literal["one-cycle"] = "one-cycle"
    """Which schedule this is."""
    peak_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps after which the learning rate is at its highest."""


class Step(StrictModel):
    """The learning rate is multiplied by ``factor`` at each milestone, a share of all steps."""

    name: Literal["step"]
    """Which schedule this is."""
    milestones: Annotated[list[Share], Field(min_length=1, max_length=100)] = [0.625, 0.75, 0.875]
    """Shares of all steps after which the learning rate becomes smaller."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The factor at each milestone."""


Schedule = Annotated[Constant | Cosine | Linear | OneCycle | Step, Field(discriminator="name")]


class EarlyStopping(StrictModel):
    """Ends training once the metric has not improved for ``patience`` epochs; the best epoch's weights are kept."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    """The metric that must improve on the validation split."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Epochs without a better value that end the training."""


class TrainingSpec(StrictModel):
    """One network's training."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Passes over the training split; 30 when neither this nor ``max_steps`` is given."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Optimizer steps, instead of ``epochs``."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Samples of one forward pass; an optimizer step sees ``batch_size * gradient_accumulation`` of them."""
    augment: Augment = []
    """Augmentations of each sample of the training split, drawn anew in every epoch, in this order: names, or names with
    parameters. A student and its teacher see the same view of a sample."""
    views: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of views of each sample, through which the epochs go again and again: the teacher computes outputs once for each,
    if they can be kept. null: another view in each epoch, and the teacher computes its outputs in each step."""
    label_smoothing: Share = 0.0
    """Share of each label that is spread evenly over all classes in the label loss (Szegedy et al., 2016, arXiv:1512.00567)."""
    class_weights: Literal["balanced"] | dict[ClassName, ClassWeight] | None = None
    """Weights of the classes in the label loss, by name, 1 for those that are not named; of several targets the names are
    ``target: class``. ``balanced``: each class counts as much as any other, by its rows in the training split."""
    optimizer: Optimizer = AdamW()
    """The optimizer, which computes an update from a gradient."""
    head_learning_rate: LearningRate | None = None
    """The highest learning rate of the output layer, which is often new in a network that is fine-tuned; null for the
    optimizer's own."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate of each layer, as a share of that of the layer above it; the layers' own is that of what is above them
    all, the output layer among it."""
    freeze: Annotated[list[ModulePath], Field(max_length=1000)] = []
    """Modules whose weights and running statistics stay as they are, by their paths; ``*`` stands for any part of a path. Their
    dropout goes on."""
    schedule: Schedule = OneCycle()
    """The learning rate over the steps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto``: bf16 on a GPU that has it, else fp32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the initial weights, of the order of the samples and of their views."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Batches whose gradients make one optimizer step."""
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Samples that go through the network at once, for the same gradient in less memory; ``auto``: as many as there is memory
    for; null: the whole batch."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Whether a layer's inner results are computed again for the backward pass rather than kept; ``auto``: where it does not fit
    otherwise."""
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Longer gradients are shortened to this length; null leaves them as they are."""
    early_stopping: EarlyStopping | None = None
    """When to end before the last epoch; null trains to the end."""
    checkpoint_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """A checkpoint is written at the first step after this many seconds; a crash costs at most that."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Also write one every so many optimizer steps."""

    @model_validator(mode="after")
    def _views_are_of_augmentation(self) -> Self:
        if self.views is not None and not self.augment:
            raise ValueError("views counts the views that augment makes: give augment, or leave views out")
        return self

    @model_validator(mode="after")
    def _micro_batches_divide_batches(self) -> Self:
        if isinstance(self.micro_batch, int) and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch is a part of batch_size, {self.batch_size}: make it that or less")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give epochs or max_steps, not both")
        if self.epochs is None and self.max_steps is None:
            object.__setattr__(self, "epochs", 30)
        return self
