"""The one training loop: teacher, student and control all go through :func:`train`.

B batch, W outputs. A *step* is one optimizer update, of ``gradient_accumulation`` batches. Steps are counted over the whole
training; its place in the epoch, its samples and its learning rate all follow from its number, so this number is the whole
position. What is minimised is the :class:`Criterion`'s, and what the best weights are chosen by the :class:`Validation`'s.

Several ranks may run it on the same batches: see :mod:`worker.distributed.group`. *Batch* means the whole batch here, and every
decision is the same on all ranks.

Three things make it fast without changing a value. Data in memory need no loader, and others are made ahead of the steps. Without
augmentation, where each sample has the same view in every epoch, the teacher's outputs are computed once, before the loop, and a
student's step has no teacher in it. And no step waits for the device: losses are read in groups. A loss that is not finite is
still reported with its step, and always before a checkpoint or the best weights are written.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from service.spec.training import TrainingSpec
from worker.data.epoch import count_steps, epoch_batches, samples_per_epoch, steps_per_epoch
from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, Losses, ProcessGroup
from worker.distributed.rng import epoch_order, generator_states, restore_generators
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult
from worker.evaluation.precision import choose_precision
from worker.models.adapters import frozen_norms
from worker.protocol import Phase
from worker.training.criterion import Criterion, StepContext
from worker.training.kept_weights import Weights, kept, restore
from worker.training.memory import MemorySavings, choose_savings, within_memory
from worker.training.metric_points import WindowMean
from worker.training.optimizers import Group, build_optimizer, hidden_matrices
from worker.training.parameter_groups import freeze, parameter_groups
from worker.training.result import TrainingFigures, TrainingResult
from worker.training.schedules import learning_rate
from worker.training.validation import Validation

# Losses that may wait on the device: few enough that a NaN is found soon, many enough that reading them costs nothing.
_UNREAD_LOSSES = 64


class Callback(Protocol):
    """Called between two steps: for progress, checkpoints and requests to stop."""

    def on_step_end(self, training: "Training") -> None:
        """Called after each completed step, and its evaluation if it ends an epoch.

        Raises:
            StopAsked: the training ends here.
        """


class Training:
    """One network's training, with all state that changes while it runs."""

    def __init__(
        self,
        network: nn.Module,
        *,
        phase: Phase,
        samples: Samples,
        validation: Validation,
        spec: TrainingSpec,
        criterion: Criterion,
        num_steps: int | None = None,
        name: str | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """``network`` is as ``group`` trains it, see :meth:`ProcessGroup.convert_sync_batchnorm`; ``criterion`` is its own.

        ``num_steps`` trains for exactly that many steps, on the same schedule and without early stopping.

        ``name`` is the prefix of the metrics' names; the default is the phase, which several trainings may share.

        Raises:
            UnfitTraining: the network cannot be trained as the spec says, on this host at least.
        """
        self.network, self.phase, self.spec, self.criterion = network, phase, spec, criterion
        self.name, self.group = name or phase, group
        self.module = nn.ModuleList([network])
        """All trained weights: the network's, and the method's own."""
        if criterion.module is not None:
            self.module.append(criterion.module.to(samples.device))
        self.samples, self.validation, self.device = samples, validation, samples.device
        self.precision = choose_precision(spec.precision, self.device)
        self._frozen_norms = [*freeze(network, spec.freeze), *frozen_norms(network)]
        self.savings = MemorySavings(network, spec)
        group.agrees_on_memory = spec.micro_batch is not None
        groups = parameter_groups(network, spec, samples)
        if criterion.module is not None:
            groups.append(Group([weight for weight in criterion.module.parameters() if weight.requires_grad]))
        self.optimizer = build_optimizer(groups, spec.optimizer, matrices=hidden_matrices(network))
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.scales_gradients)

        self.steps_per_epoch = steps_per_epoch(spec, len(samples), samples.transfer)
        self.samples_per_epoch = samples_per_epoch(len(samples), batch_size=spec.batch_size, transfer=samples.transfer)
        self.total_steps = count_steps(spec, len(samples), samples.transfer)
        self.last_step = num_steps or self.total_steps
        self.early_stopping = spec.early_stopping if num_steps is None else None

        self.step = 0
        """Steps done."""
        self.best: Weights | None = None
        self.best_step = 0
        self.best_validation: EvaluationResult | None = None
        self.last_validation: EvaluationResult | None = None
        self.stale_evaluations = 0
        self.train_loss = 0.0
        self.points: dict[str, list[tuple[int, float]]] = {}
        """Metric points that :meth:`take_points` has not returned yet."""
        self.curves: dict[str, list[list[float]]] = {}
        """All points so far but those of the learning rate, [step, value] by name, for the report."""
        self._unread_losses: list[Tensor] = []
        self._score_name = f"validation_{validation.score_name}"
        num_evaluations = math.ceil(self.last_step / self.steps_per_epoch)
        self._windows = {
            "train_loss": WindowMean(self.last_step),
            "learning_rate": WindowMean(self.last_step),
            self._score_name: WindowMean(num_evaluations),
            "validation_loss": WindowMean(num_evaluations),
        }
        self._earlier_seconds = 0.0
        self._started_at = time.monotonic()

    @property
    def epoch(self) -> int:
        """The epoch of the last step done, from 1."""
        return max(0, self.step - 1) // self.steps_per_epoch + 1

    @property
    def stopped_early(self) -> bool:
        return self.early_stopping is not None and self.stale_evaluations >= self.early_stopping.patience

    @property
    def done(self) -> bool:
        return self.step >= self.last_step or self.stopped_early

    @property
    def seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started_at

    @property
    def modules(self) -> list[nn.Module]:
        """All that a step trains."""
        return [self.module]

    @property
    def read_beside(self) -> list[Samples]:
        """Further samples that a step reads, those of the same indices, behind its own."""
        return []

    def train_mode(self) -> None:
        """Puts the network into training mode, but for norms that are frozen, whose running statistics are frozen too."""
        self.network.train()
        for norm in self._frozen_norms:
            norm.eval()

    def epoch_batches(self, epoch: int) -> list[Tensor]:
        """The sample indices of an epoch's batches; epochs count from 0 here."""

        def order(num_samples: int, stream: int) -> Tensor:
            return epoch_order(num_samples, seed=self.spec.seed, epoch=epoch, stream=stream).to(self.samples.home)

        samples, batch_size = self.samples, self.spec.batch_size
        return epoch_batches(len(samples), batch_size=batch_size, order=order, transfer=samples.transfer)

    def announce(self, batches: Sequence[Tensor], epoch: int) -> None:
        """Says which samples the steps of an epoch read, as this rank reads them and in micro batches."""
        if not self.samples.is_read_ahead:
            return
        size = self.savings.micro_batch
        parts = (part for batch in batches for part in ([batch] if size is None else torch.split(batch, size)))
        self.samples.announce([self.group.shard(part) for part in parts], epoch=epoch, beside=self.read_beside)

    def update(self, batches: list[Tensor]) -> None:
        """One optimizer step over ``batches`` of sample indices: the gradient of the mean over all their samples."""
        self.optimizer_step(within_memory(self, lambda: self._backpropagate(batches)))

    def _backpropagate(self, batches: list[Tensor]) -> list[Tensor]:
        num_samples = sum(map(len, batches))
        losses = []
        for indices in batches:
            for piece in self.pieces(indices):
                (loss,) = self.losses(piece)
                losses.append(self.weighted(loss, fraction=len(indices) / num_samples))
                torch.autograd.backward(self.scaler.scale(losses[-1]))
        return losses

    @cached_property
    def losses(self) -> Callable[[Callable[[], Losses]], Losses]:
        """Computes losses for backpropagation. Built at the first step: DDP broadcasts rank 0's weights."""
        return self.group.wrap_ddp(nn.ModuleList(self.modules))

    def pieces(self, indices: Tensor) -> Iterator[Callable[[], Losses]]:
        """What computes the losses of a batch, whole or in micro batches: see :data:`Pieces`."""
        size = self.savings.micro_batch
        if size is None or size >= len(indices):
            yield lambda: self.batch_losses(indices)
            return
        yield from self.divided_losses(torch.split(indices, size))

    def batch_losses(self, indices: Tensor) -> Losses:
        """The losses of a whole batch."""
        return (self.criterion(indices, self.step_context),)

    def divided_losses(self, parts: Sequence[Tensor]) -> Iterator[Callable[[], Losses]]:
        """What computes the losses of a batch in parts."""
        for piece in self.criterion.pieces(parts, self.step_context):
            yield lambda piece=piece: (piece(),)  # type: ignore[misc]

    @property
    def step_context(self) -> StepContext:
        """What the criterion knows of the next step."""
        return StepContext(self.step, self.steps_per_epoch, self.last_step, self.precision, self.group)

    def weighted(self, loss: Tensor, *, fraction: float) -> Tensor:
        """A batch's contribution to the loss of its optimizer step: the batch has this fraction of the step's samples."""
        return loss if fraction == 1 else loss * fraction

    def optimizer_step(self, losses: list[Tensor]) -> None:
        """Takes the optimizer's step on the accumulated gradients, and records the sum of ``losses`` as the step's loss."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = self._learning_rate(self.step, peak=peak)
        if self.spec.gradient_clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.spec.gradient_clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

        self.step += 1
        values = [loss.detach() for loss in losses]
        self._unread_losses.append(values[0] if len(values) == 1 else torch.stack(values).sum())
        if len(self._unread_losses) >= _UNREAD_LOSSES:
            self.read_losses()

    def read_losses(self) -> None:
        """Reads the losses of the last steps from the device and records them as metric points.

        Raises:
            JobFault: one is not finite; the first such step is named.
        """
        if not self._unread_losses:
            return
        values = torch.stack(self._unread_losses).tolist()
        first_step = self.step - len(values) + 1
        self._unread_losses.clear()
        for step, value in enumerate(values, start=first_step):
            if not math.isfinite(value):
                raise self._non_finite(f"The {self.name}'s loss became {value}", step=step)
            self._record("train_loss", value, step=step)
            self._record("learning_rate", self._learning_rate(step - 1, peak=self.spec.optimizer.learning_rate), step=step)

    def evaluate(self) -> None:
        """Evaluates the network on the validation split, copies the weights if they are the best, and updates early stopping.

        Raises:
            JobFault: the loss is not finite.
        """
        self.read_losses()
        result = self.validation.evaluate(self.network, precision=self.precision, group=self.group)
        if not math.isfinite(result.loss):
            raise self._non_finite(f"The {self.name}'s loss on the validation split became {result.loss}", step=self.step)
        self.last_validation = result
        self._record(self._score_name, result.score, step=self.step)
        self._record("validation_loss", result.loss, step=self.step)

        previous = self.best_validation
        # Early stopping compares one metric; for the best weights, the other metric breaks ties.
        improved = previous is None or self._sort_key(result)[0] > self._sort_key(previous)[0]
        self.stale_evaluations = 0 if improved else self.stale_evaluations + 1
        if previous is None or self._sort_key(result) > self._sort_key(previous):
            self.best, self.best_step, self.best_validation = kept(self.network), self.step, result
        if self.done:
            for name in self._windows:
                self._point(name, self._windows[name].close(), step=self.step)

    def take_points(self) -> dict[str, list[tuple[int, float]]]:
        """The metric points since the last call."""
        points, self.points = self.points, {}
        return points

    def finish(self) -> TrainingResult:
        """The result, after the last step."""
        if self.best is None or self.best_validation is None or self.last_validation is None:
            raise RuntimeError("a training is finished only after its last step's evaluation")
        vars(self).pop("losses", None)  # it references this training, whose memory the next one needs
        epochs, rest = divmod(self.step, self.steps_per_epoch)
        figures = TrainingFigures(
            steps=self.step,
            epochs=epochs + (rest > 0),
            stopped_early=self.stopped_early,
            best_step=self.best_step,
            chosen_by=self.validation.chosen_by,
            best_validation=self.best_validation,
            last_validation=self.last_validation,
            train_loss=self.train_loss,
            seconds=self.seconds,
            curves=self.curves,
            samples_seen=epochs * self.samples_per_epoch
            + min(rest * self.spec.gradient_accumulation * self.spec.batch_size, self.samples_per_epoch),
        )
        return TrainingResult(best=self.best, last=kept(self.network), figures=figures)

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`restore` needs to continue exactly; to be written before the next step.

        Raises:
            JobFault: a loss or a weight is not finite.
        """
        self.read_losses()
        weights = kept(self.network)
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise self._non_finite(f"The {self.name}'s weights became NaN or infinite", step=self.step)
        return {
            "step": self.step,
            "network": weights,
            "objective": {} if self.criterion.module is None else kept(self.criterion.module),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": generator_states(self.device),
            "ranks": self.group.local_generator_states(self.device),
            "best": self.best,
            "best_step": self.best_step,
            "best_validation": asdict(self.best_validation) if self.best_validation else None,
            "last_validation": asdict(self.last_validation) if self.last_validation else None,
            "stale_evaluations": self.stale_evaluations,
            "train_loss": self.train_loss,
            "windows": {name: window.state() for name, window in self._windows.items()},
            "savings": self.savings.state(),
            "seconds": self.seconds,
            "curves": self.curves,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state` returned, including the states of the global random generators."""
        restore(self.network, state["network"])
        if self.criterion.module is not None:
            restore(self.criterion.module, state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.best_validation = EvaluationResult(**state["best_validation"]) if state["best_validation"] else None
        self.last_validation = EvaluationResult(**state["last_validation"]) if state["last_validation"] else None
        self.stale_evaluations, self.train_loss = state["stale_evaluations"], state["train_loss"]
        for name, window in self._windows.items():
            window.restore(state["windows"][name])
        self.savings.restore(state["savings"])
        self.curves = state.get("curves", {})  # a checkpoint of before has none
        self._earlier_seconds, self._started_at = state["seconds"], time.monotonic()
        restore_generators(state["generators"], self.device)
        self.group.restore_generators(state.get("ranks", []))

    def _learning_rate(self, step: int, *, peak: float) -> float:
        return learning_rate(self.spec.schedule, peak=peak, step=step, total_steps=self.total_steps)

    def _sort_key(self, result: EvaluationResult) -> tuple[float, float]:
        stopping = self.spec.early_stopping
        by_loss = self.validation.is_chosen_by_loss if stopping is None else stopping.metric == "loss"
        return (-result.loss, result.score) if by_loss else (result.score, -result.loss)

    def _record(self, name: str, value: float, *, step: int) -> None:
        self._point(name, self._windows[name].add(value), step=step)

    def _point(self, name: str, mean: float | None, *, step: int) -> None:
        if mean is None:
            return
        if name == "train_loss":
            self.train_loss = mean
        self.points.setdefault(f"{self.name}/{name}", []).append((step, mean))
        if name != "learning_rate":
            self.curves.setdefault(name, []).append([step, mean])

    def _non_finite(self, message: str, *, step: int) -> JobFault:
        epoch = (step - 1) // self.steps_per_epoch + 1
        return JobFault(
            "non_finite_loss",
            f"{message} at step {step} of {self.last_step}, in epoch {epoch}.",
            hint="Lower the learning rate, set gradient_clip_norm, or train in fp32.",
            details={"phase": self.phase, "step": step, "epoch": epoch},
        )


def train(training: Training, callback: Callback) -> TrainingResult:
    """Runs a training from wherever it stands to its end.

    Raises:
        JobFault: the loss became NaN or infinite.
        StopAsked: raised by ``callback``, between two steps; the training can resume from its state.
    """
    accumulation = training.spec.gradient_accumulation
    training.train_mode()
    if training.step == 0:
        choose_savings(training)
    while not training.done:
        epoch, steps_done = divmod(training.step, training.steps_per_epoch)
        batches = training.epoch_batches(epoch)
        training.announce(batches[steps_done * accumulation :], epoch)
        for first in range(steps_done * accumulation, len(batches), accumulation):
            training.update(batches[first : first + accumulation])
            if training.step % training.steps_per_epoch == 0 or training.step == training.last_step:
                training.evaluate()
            callback.on_step_end(training)
            if training.done:
                break
    return training.finish()
