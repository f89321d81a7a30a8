"""Operations and memory of one training step. B samples of a batch.

Invariant: attention counts as GPUs compute it, without materialising its matrix of probabilities. The CPU's kernel for that
supports no dropout, so a profiled step has none in its attention.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from service.spec.training import Adafactor, AdamW, AdamW8bit, Muon, Optimizer
from worker.data.tensors import Inputs, num_bytes, num_rows
from worker.distributed.collectives import split_tensors
from worker.distributed.ranks import SingleProcess
from worker.eval_mode import in_eval_mode
from worker.evaluation.precision import Precision
from worker.methods.batch import DistillationBatch
from worker.models.loading import plain_tensors
from worker.training.loop import Training
from worker.training.memory import recomputed_inputs
from worker.training.mutual import MutualTraining
from worker.training.optimizers import hidden_matrices

Forward = Callable[[nn.Module, Inputs], Tensor]
"""A forward pass of a network on inputs (B, …)."""


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
    saved: int
    """Tensors saved for the backward pass that grow with the batch."""
    saved_by_loss: int
    """The part of ``saved`` that the loss saves: each of several ranks computes the loss of the whole batch."""
    exchanged: int
    """Outputs that ranks gather from each other."""
    saved_weights: int
    """Weights saved for the backward pass in the forward pass's precision."""


def profile_step(training: Training) -> StepProfile:
    """Profiles a training's first step and checks its loss.

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
    saved = _SavedTensors(modules)
    for each in trainings:
        each.group = saved.group
    with (
        _WithoutAttentionDropout(),
        FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter,
        saved.watching(),
        recomputed_inputs(modules, saved.see),
    ):
        training.update([torch.arange(num_samples, device=training.samples.home)])
    training.read_losses()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    states = [value for each in trainings for state in each.optimizer.state.values() for value in state.values()]
    moments = {each.untyped_storage()._cdata: each.nbytes for each in states if isinstance(each, Tensor) and each.dim()}
    return StepProfile(
        num_samples=num_samples,
        flops=counter.get_total_flops(),
        weights=sum(map(size_of, modules)) - sum(buffer.nbytes for buffer in remembered),
        per_dataset_sample=sum(buffer.nbytes for buffer in remembered) / num_samples,
        gradients=sum(parameter.nbytes for parameter in parameters if parameter.requires_grad),
        optimizer=sum(moments.values()),
        saved=saved.growing,
        saved_by_loss=saved.by_loss,
        exchanged=saved.group.exchanged,
        saved_weights=saved.weights,
    )


def profile_on_meta(
    network: nn.Module, inputs: Inputs, optimizer: Optimizer, precision: Precision, *, forward: Forward
) -> StepProfile:
    """Profiles a step on labels alone of a network and inputs (B, …) without values, inside ``with_fake_tensors``."""
    saved = _SavedTensors([network])
    network.train()
    with _WithoutAttentionDropout(), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter, saved.watching():
        with precision.forward_pass():
            outputs = forward(network, inputs)
        torch.autograd.backward(outputs.float().sum())
    gradients = sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
    return StepProfile(
        num_samples=num_rows(inputs),
        flops=counter.get_total_flops(),
        weights=size_of(network),
        per_dataset_sample=0.0,
        gradients=gradients,
        optimizer=_optimizer_bytes(network, optimizer, gradients),
        saved=saved.growing,
        saved_by_loss=0,
        exchanged=0,
        saved_weights=saved.weights,
    )


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
    there = {each.untyped_storage()._cdata for other in beside for each in _tensors(other)}
    sizes = {each.untyped_storage()._cdata: each.nbytes for each in _tensors(network)}
    return sum(size for place, size in sizes.items() if place not in there)


def profile_inference(network: nn.Module, inputs: Inputs, *, forward: Forward = nn.Module.__call__) -> float:
    """Peak bytes of a forward pass on inputs (B, …) without gradients: per sample, weights left out."""
    live = _LiveTensors(network)
    with in_eval_mode(network), _WithoutAttentionDropout(), live:
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


class _SavedTensors:
    """Sizes of the tensors that autograd saves: each storage once, parameters left out."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        known = [each for module in modules for each in _tensors(module)]
        self._known = {each.untyped_storage()._cdata for each in known}
        self._shapes = {tuple(sorted(each.shape)) for each in known}
        self._growing: dict[int, int] = {}
        self._by_loss: dict[int, int] = {}
        self._weights: dict[int, int] = {}
        self.group = _CountingProcess()

    @property
    def growing(self) -> int:
        return sum(self._growing.values()) + self.by_loss

    @property
    def by_loss(self) -> int:
        return sum(self._by_loss.values())

    @property
    def weights(self) -> int:
        return sum(self._weights.values())

    def watching(self) -> Any:
        """Context in which saved tensors are counted."""
        return torch.autograd.graph.saved_tensors_hooks(self.see, lambda saved: saved)

    def see(self, tensor: Tensor) -> Tensor:
        """Counts a tensor, and returns it."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place not in self._known:
            is_weight = tensor.dtype in (torch.bfloat16, torch.float16) and tuple(sorted(tensor.shape)) in self._shapes
            is_by_loss = self.group.sees_whole and place not in self._growing
            sizes = self._weights if is_weight else self._by_loss if is_by_loss else self._growing
            sizes[place] = max(sizes.get(place, 0), storage.nbytes())
        return tensor


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Peak bytes of operation results that are alive at the same time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {each.untyped_storage()._cdata for each in _tensors(network)}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        results = function(*arguments, **(options or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                storage = result.untyped_storage()
                if storage._cdata not in self._known:
                    reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                    self._live[storage._cdata] = (reference, storage.nbytes())
        gone = [place for place, (reference, _) in self._live.items() if reference.expired()]  # type: ignore[no-untyped-call]
        for place in gone:
            del self._live[place]
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return results


class _WithoutAttentionDropout(TorchFunctionMode):
    def __torch_function__(self, function: Callable[..., Any], types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        if function is functional.scaled_dot_product_attention:
            if len(arguments) > 4:
                arguments = (*arguments[:4], 0.0, *arguments[5:])
            else:
                options["dropout_p"] = 0.0
        return function(*arguments, **options)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""FlopCounterMode knows the kernels of GPUs only."""


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    for each in (*network.parameters(), *network.buffers()):
        yield from (tensor for _, tensor in plain_tensors(each))
