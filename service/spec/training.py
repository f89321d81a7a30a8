"""How a network is trained: length, optimizer, schedule, precision, seed, checkpoints."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.spec.strict import StrictModel

LearningRate = Annotated[float, Field(gt=0, le=1000)]
WeightDecay = Annotated[float, Field(ge=0, le=10)]
Share = Annotated[float, Field(ge=0, lt=1)]


class AdamW(StrictModel):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: LearningRate = 0.003
    weight_decay: WeightDecay = 0.01
    beta1: Share = 0.9
    beta2: Share = 0.999


class Sgd(StrictModel):
    """Stochastic gradient descent with momentum; the optimizer of the CIFAR distillation tables."""

    name: Literal["sgd"]
    learning_rate: LearningRate = 0.05
    momentum: Share = 0.9
    weight_decay: WeightDecay = 5e-4
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


Optimizer = Annotated[AdamW | Sgd, Field(discriminator="name")]


class Constant(StrictModel):
    """The learning rate stays as it is."""

    name: Literal["constant"]


class Cosine(StrictModel):
    """Linear warm-up, then half a cosine down to 0 (Loshchilov & Hutter, 2017)."""

    name: Literal["cosine"]
    warmup_fraction: Share = 0.05


class OneCycle(StrictModel):
    """Up to the learning rate by half a cosine, then down to almost 0 by another (Smith & Topin, 2018)."""

    name: Literal["one-cycle"] = "one-cycle"
    peak_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps after which the learning rate is at its highest."""


class Step(StrictModel):
    """The learning rate is multiplied by ``factor`` at each milestone, a share of all steps."""

    name: Literal["step"]
    milestones: Annotated[list[Share], Field(min_length=1, max_length=100)] = [0.625, 0.75, 0.875]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


Schedule = Annotated[Constant | Cosine | OneCycle | Step, Field(discriminator="name")]


class EarlyStopping(StrictModel):
    """Ends training once the metric has not improved for ``patience`` epochs; the best epoch's weights are kept."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    patience: Annotated[int, Field(ge=1, le=10_000)] = 10


class TrainingSpec(StrictModel):
    """One network's training."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Passes over the training split; 30 when neither this nor ``max_steps`` is given."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Optimizer steps, instead of ``epochs``."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Samples of one forward pass; an optimizer step sees ``batch_size * gradient_accumulation`` of them."""
    optimizer: Optimizer = AdamW()
    schedule: Schedule = OneCycle()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto``: bf16 on a GPU that has it, else fp32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    gradient_accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None = None
    early_stopping: EarlyStopping | None = None
    checkpoint_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """A checkpoint is written at the first step after this many seconds; a crash costs at most that."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Also write one every so many optimizer steps."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give epochs or max_steps, not both")
        if self.epochs is None and self.max_steps is None:
            object.__setattr__(self, "epochs", 30)
        return self
