"""Operations and memory of one training step. B samples of a batch.

Invariant: attention counts as GPUs compute it, without materialising its matrix of probabilities. The CPU's kernel for that
supports no dropout, so a profiled step has none in its attention.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.training import Adafactor, AdamW, AdamW8bit, Muon, Optimizer
from worker.data.tensors import Inputs, num_bytes, num_rows
from worker.distributed.collectives import split_tensors
from worker.distributed.ranks import SingleProcess
from worker.eval_mode import in_eval_mode
from worker.evaluation.live_tensors import LiveTensors, tensors_of
from worker.evaluation.precision import Precision
from worker.methods.batch import DistillationBatch
from worker.training.loop import Training
from worker.training.mutual import MutualTraining
from worker.training.optimizers import hidden_matrices

Forward = Callable[[nn.Module, Inputs], Tensor]
"""A forward pass of a network on inputs (B, …)."""


@dataclass(frozen=True)
class Chunk:
    """Outputs of which no more than some rows are in memory at once."""

    width: int
    rows: int


@dataclass(frozen=True)
class LiveBytes:
    """Sizes of the tensors that are alive at one moment of a step, by how they grow."""

    gradients: int = 0
    fixed: int = 0
    """Of the shape of a weight, such as one that is cast, but no gradients of the whole step."""
    growing: int = 0
    """By the samples that go through the network at once."""
    by_loss: int = 0
    """By the samples of the whole batch, of which each of several ranks computes the loss."""
    in_chunks: int = 0
    """Outputs of ``chunk_rows`` rows, of which ``most_rows`` are there at once."""
    chunk_rows: int = 0
    most_rows: int = 0

    def bytes_of(self, batch: float, *, whole: float) -> float:
        """Their size with ``batch`` times the samples in the network, of a whole batch that is ``whole`` times as large."""
        rows = min(self.most_rows, self.chunk_rows * batch) / self.chunk_rows if self.chunk_rows else 0.0
        return self.gradients + self.fixed + self.growing * batch + self.by_loss * whole + self.in_chunks * rows


@dataclass(frozen=True)
class StepProfile:
    """One optimizer step, forward and backward, on ``num_samples`` samples. Sizes are in bytes."""

    num_samples: int
    flops: int
    weights: int
    """Parameters and buffers, such as the statistics of batch norm."""
    per_dataset_sample: float
    """Buffers of the method per sample of the training split, such as memory banks."""
    gradients: int
    optimizer: int
    passes: LiveBytes
    """What is there beside weights and moments at the moment of the two passes that takes most in a batch of the spec's size."""
    update: int
    """What the optimizer makes to update the weights, at most, beside gradients and moments."""
    exchanged: int
    """Outputs that ranks gather from each other."""


def profile_step(training: Training, *, batch: int, whole: int, chunk: Chunk | None = None) -> StepProfile:
    """Profiles a training's first step and checks its loss.

    In the job, ``batch`` samples go through the network at once, of a batch of ``whole`` samples; ``chunk`` is the task's.

    Raises:
        JobFault: the loss is not finite.
    """
    trainings = [training, training.peer] if isinstance(training, MutualTraining) else [training]
    modules = [each.module for each in trainings]
    num_samples = len(training.samples)
    remembered = [
        buffer
        for each in trainings
        if (own := each.criterion.module) is not None
        for buffer in own.buffers()
        if buffer.shape[:1] == (num_samples,)
    ]
    training.train_mode()
    live = _StepTensors(modules, batch=batch / num_samples, whole=whole / num_samples, chunk=chunk)
    for each in trainings:
        each.group = live.group
        each.optimizer.register_step_pre_hook(lambda *_: live.begin_update())
    with _without_attention_dropout(), live:
        training.update([torch.arange(num_samples, device=training.samples.home)])
    training.read_losses()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    gradients = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    states = [value for each in trainings for state in each.optimizer.state.values() for value in state.values()]
    moments = {each.untyped_storage()._cdata: each.nbytes for each in states if isinstance(each, Tensor) and each.dim()}
    return StepProfile(
        num_samples=num_samples,
        flops=live.flops,
        weights=sum(map(size_of, modules)) - sum(buffer.nbytes for buffer in remembered),
        per_dataset_sample=sum(buffer.nbytes for buffer in remembered) / num_samples,
        gradients=gradients,
        optimizer=sum(moments.values()),
        passes=live.passes,
        update=max(0, live.update - sum(moments.values()) - gradients),
        exchanged=live.group.exchanged,
    )


def profile_on_meta(
    network: nn.Module,
    inputs: Inputs,
    optimizer: Optimizer,
    precision: Precision,
    *,
    forward: Forward,
    batch: int,
    whole: int,
    chunk: Chunk | None = None,
) -> StepProfile:
    """Profiles a step on labels alone of a network and inputs (B, …) without values, inside ``with_fake_tensors``.

    The other arguments are those of :func:`profile_step`.
    """
    num_samples = num_rows(inputs)
    live = _StepTensors([network], batch=batch / num_samples, whole=whole / num_samples, chunk=chunk)
    network.train()
    with _without_attention_dropout(), live:
        with precision.forward_pass():
            outputs = forward(network, inputs)
        torch.autograd.backward(outputs.float().sum())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = sum(parameter.nbytes for parameter in trained)
    return StepProfile(
        num_samples=num_samples,
        flops=live.flops,
        weights=size_of(network),
        per_dataset_sample=0.0,
        gradients=gradients,
        optimizer=_optimizer_bytes(network, optimizer, gradients),
        passes=live.passes,
        update=_COPIES_TO_UPDATE.get(type(optimizer), 0) * max((each.nbytes for each in trained), default=0),
        exchanged=0,
    )


_COPIES_TO_UPDATE: Mapping[type[Optimizer], int] = {Adafactor: 4, Muon: 4}
"""Of the largest weight, where no step was taken; the others update in place."""


def _optimizer_bytes(network: nn.Module, optimizer: Optimizer, gradients: int) -> int:
    """Bytes of an optimizer's state, where no step was taken."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    match optimizer:
        case AdamW():
            return 2 * gradients
        case AdamW8bit():
            return sum(_bytes_of_8bit_moments(each) for each in trained)
        case Muon():
            matrices = hidden_matrices(network)
            return sum(each.nbytes if each in matrices else 2 * each.nbytes for each in trained)
        case Adafactor():
            return sum(
                each.nbytes // each.shape[-1] + each.nbytes // each.shape[-2] if each.dim() > 1 else each.nbytes
                for each in trained
            )
    return gradients


def _bytes_of_8bit_moments(parameter: Tensor) -> int:
    """Two moments of 8 bits with a float32 for each block of 256; bitsandbytes keeps small ones in float32."""
    count = parameter.numel()
    return 8 * count if count < 4096 else 2 * (count + 4 * math.ceil(count / 256))


def size_of(network: nn.Module, *, beside: Iterable[nn.Module] = ()) -> int:
    """Bytes of the parameters and buffers; shared storage counts once, and not at all if it is that of a network ``beside``."""
    there = {each.untyped_storage()._cdata for other in beside for each in tensors_of(other)}
    sizes = {each.untyped_storage()._cdata: each.nbytes for each in tensors_of(network)}
    return sum(size for place, size in sizes.items() if place not in there)


def profile_inference(network: nn.Module, inputs: Inputs, *, forward: Forward = nn.Module.__call__) -> float:
    """Peak bytes of a forward pass on inputs (B, …) without gradients: per sample, weights left out."""
    live = LiveTensors([network])
    with in_eval_mode(network), _without_attention_dropout(), live:
        forward(network, inputs)
    return (live.peak + num_bytes(inputs)) / num_rows(inputs)


class _CountingProcess(SingleProcess):
    """Records whether a rank sees the whole batch, and how many bytes it would gather for that."""

    def __init__(self) -> None:
        self.exchanged, self.sees_whole = 0, False

    def shard(self, indices: Tensor) -> Tensor:
        self.sees_whole = False
        return super().shard(indices)

    def gather_batch(self, batch: DistillationBatch, *, num_samples: int) -> DistillationBatch:
        self.sees_whole = True
        self.exchanged += sum(tensor.nbytes for part in split_tensors(batch) for tensor in part)
        return super().gather_batch(batch, num_samples=num_samples)


class _StepTensors(LiveTensors):  # type: ignore[no-untyped-call]
    """The tensors of a step at the moment that takes most in a batch of the spec's size, and during the update."""

    def __init__(self, modules: Sequence[nn.Module], *, batch: float, whole: float, chunk: Chunk | None) -> None:
        super().__init__(modules)
        known = [each for module in modules for each in tensors_of(module)]
        self._shapes = {tuple(sorted(each.shape)) for each in known}
        self._parameters = [parameter for module in modules for parameter in module.parameters()]
        self._batch, self._whole, self._chunk = batch, whole, chunk
        self._rows = 0
        self._updates = False
        self.group = _CountingProcess()
        self.passes = LiveBytes()
        self.update = 0
        """The most that is alive during the update."""

    def begin_update(self) -> None:
        """From here on the optimizer computes."""
        if not self._updates:
            self._updates, self.peak = True, 0.0

    def _kind(self, result: Tensor) -> str:
        if tuple(sorted(result.shape)) in self._shapes:
            return "fixed"
        if self._chunk is not None and self._chunk.width in result.shape[-1:]:
            self._rows = max(self._rows, result.numel() // self._chunk.width)
            return "in_chunks"
        in_backward_pass = torch._C._current_graph_task_id() != -1  # of a loss, of what comes before it, and of recomputed layers
        return "by_loss" if self.group.sees_whole and not in_backward_pass else "growing"

    def _size(self) -> float:
        return super()._size() if self._updates else self._now(gradients=0).bytes_of(self._batch, whole=self._whole)

    def _at_peak(self) -> None:
        if self._updates:
            self.update = int(self.peak)
        else:
            self.passes = self._now(gradients=sum(each.grad.nbytes for each in self._parameters if each.grad is not None))

    def _now(self, *, gradients: int) -> LiveBytes:
        most = 0 if self._chunk is None else max(self._chunk.rows, 0)
        sizes = self._totals | {"fixed": max(0, self._totals["fixed"] - gradients)}
        return LiveBytes(gradients=gradients, **sizes, chunk_rows=self._rows, most_rows=most)


@contextmanager
def _without_attention_dropout() -> Iterator[None]:
    """Takes the dropout from attention, also from that which a backward pass computes again: there no mode of torch's is on."""
    attend = functional.scaled_dot_product_attention

    def plain(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any) -> Tensor:
        return attend(query, key, value, attn_mask, 0.0, **options)

    functional.scaled_dot_product_attention = plain  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend
