"""The process group of one attempt's ranks in ``torch.distributed``."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from worker.distributed.collectives import GatherShards, WeightedMean, padded, rebuild_batch, sendable, split_tensors
from worker.distributed.out_of_memory import is_out_of_memory
from worker.distributed.ranks import Losses, OutOfMemoryTogether, T
from worker.distributed.rng import generator_states, restore_generators, seed_everything
from worker.distributed.sync_batch_norm import convert_sync_batchnorm
from worker.methods.batch import DistillationBatch

# Never reached: the process that started the ranks kills them all when one dies.
_TIMEOUT = timedelta(days=365)


def join(rendezvous: Path, *, rank: int, world_size: int, device: torch.device) -> "Distributed":
    """Joins the group of this host's ranks, and waits for them. ``rendezvous`` is the file of their store, fresh each time."""
    if sys.platform == "linux":  # all ranks are on this host: no outside interface, no name resolution
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = dist.FileStore(str(rendezvous), world_size)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
    return Distributed(rank, world_size, device)


def is_peer_failure(error: BaseException) -> bool:
    """See :meth:`ProcessGroup.is_peer_failure`."""
    message = str(error)  # gloo's errors have no class of their own
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in message or "NCCL" in message))


class Distributed:
    """One of several ranks in ``torch.distributed``'s default group: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, rank: int, world_size: int, device: torch.device) -> None:
        self.rank, self.world_size, self.is_rank0 = rank, world_size, rank == 0
        self.has_empty_shard = False
        """Whether the current batch has no samples for this rank, so that it computes on a placeholder that is left out."""
        self.agrees_on_memory = False
        self._device = device
        self._local_states = generator_states(device)

    def shard(self, indices: Tensor) -> Tensor:
        own = torch.split(indices, self._sizes(len(indices)))[self.rank]
        self.has_empty_shard = len(own) == 0
        return indices[:1] if self.has_empty_shard else own

    @contextmanager
    def rank_local_rng(self) -> Iterator[None]:
        common = generator_states(self._device)
        restore_generators(self._local_states, self._device)
        try:
            yield
        finally:
            self._local_states = generator_states(self._device)
            restore_generators(common, self._device)

    def seed(self, seed: int) -> None:
        mixed = numpy.random.SeedSequence([seed, self.rank]).generate_state(1)[0]
        seed_everything(int(mixed))
        self._local_states = generator_states(self._device)
        seed_everything(seed)

    def rng_states(self, device: torch.device) -> Any:
        return generator_states(device), self._local_states

    def set_rng_states(self, states: Any, device: torch.device) -> None:
        common, self._local_states = states
        restore_generators(common, device)

    @contextmanager
    def together(self) -> Iterator[None]:
        failure: BaseException | None = None
        try:
            yield
        except OutOfMemoryTogether:
            raise  # a block inside this one has told it
        except (RuntimeError, MemoryError) as error:
            if not self.agrees_on_memory or not is_out_of_memory(error):
                raise
            failure = error
        if self.agrees_on_memory and not self.all_true(failure is None):
            raise OutOfMemoryTogether(str(failure or "on another of the job's devices")) from failure

    def average_gradients(self, module: nn.Module) -> None:
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if not self.agrees_on_memory or not weights:
            return
        used = torch.tensor([weight.grad is not None for weight in weights]).int()
        dist.all_reduce(used, dist.ReduceOp.MAX)
        for weight, is_used in zip(weights, used.tolist(), strict=True):
            if is_used:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dist.all_reduce(weight.grad)
                weight.grad /= self.world_size

    def total(self, count: int) -> int:
        sum_of_counts = torch.tensor(0 if self.has_empty_shard else count)
        dist.all_reduce(sum_of_counts)
        return int(sum_of_counts)

    def gather_batch(self, batch: DistillationBatch, *, num_samples: int) -> DistillationBatch:
        differentiable, constant = split_tensors(batch)
        if any(outputs is not None and outputs.token_mask is not None for outputs in (batch.student, batch.teacher)):
            differentiable, constant = self._padded(differentiable), self._padded(constant)
        sizes = self._sizes(num_samples)
        # One by one: if a loss reads only some of them, the others must have no gradient, not one of zeros.
        return rebuild_batch(batch, [self._gather(each, sizes) for each in differentiable], self._gather_flat(constant, sizes))

    def mean(self, value: Tensor, *, count: int) -> Tensor:
        mean: Tensor = WeightedMean.apply(value, 0 if self.has_empty_shard else count, self.world_size)  # type: ignore[no-untyped-call]
        return mean

    def wrap_ddp(self, module: nn.Module) -> Callable[[Callable[[], Losses]], Losses]:
        if self.agrees_on_memory:
            for tensor in module.state_dict().values():
                tensor.copy_(self.broadcast_tensor(tensor))
            return lambda compute: compute()
        # Unused weights are searched for in each step: layers may be dropped, and a method need not read all outputs.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions of torch have another name for broadcast_buffers
            return DistributedDataParallel(
                _LossModule(module), broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def convert_sync_batchnorm(self, network: nn.Module) -> nn.Module:
        return convert_sync_batchnorm(network, has_empty_shard=lambda: self.has_empty_shard)

    def all_gather_batches(
        self, items: Sequence[T], compute: Callable[[T], Mapping[str, Tensor]]
    ) -> Iterator[Mapping[str, Tensor]]:
        for first in range(0, len(items), self.world_size):
            group_items = items[first : first + self.world_size]
            own = compute(group_items[min(self.rank, len(group_items) - 1)])
            by_name = {name: self._all_gather(tensor) for name, tensor in own.items()}
            for rank in range(len(group_items)):
                yield {name: each[rank] for name, each in by_name.items()}

    def broadcast_from_rank0(self, value: T) -> T:
        message = json.dumps(value).encode()
        if len(message) > _MESSAGE_BYTES:
            raise ValueError(f"{value!r} is longer than {_MESSAGE_BYTES} bytes of JSON")
        data = torch.frombuffer(bytearray(message.ljust(_MESSAGE_BYTES)), dtype=torch.uint8)
        dist.broadcast(data, src=0)
        received: T = json.loads(bytes(data.tolist()))
        return received

    def all_true(self, condition: bool) -> bool:
        least = torch.tensor(int(condition))
        dist.all_reduce(least, dist.ReduceOp.MIN)
        return bool(least)

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        return self._all_gather(tensor)[0]

    def local_generator_states(self, device: torch.device) -> list[dict[str, Any]]:
        states: list[Any] = [None] * self.world_size
        dist.all_gather_object(states, self._local_states)
        return states

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        self._local_states = states[self.rank]

    def is_peer_failure(self, error: BaseException) -> bool:
        return is_peer_failure(error)

    def _sizes(self, num_samples: int) -> list[int]:
        """The size of each rank's shard, as even as possible."""
        least, rest = divmod(num_samples, self.world_size)
        return [least + (rank < rest) for rank in range(self.world_size)]

    def _gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Gathers (b, …) into (B, …), with gradients."""
        gathered: Tensor = GatherShards.apply(own, tuple(sizes), self.rank)  # type: ignore[no-untyped-call]
        return gathered

    def _gather_flat(self, own: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Gathers each (b, …) into (B, …), without gradients, the tensors of one dtype in one message."""
        gathered_by_index: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in own):
            indices = [index for index, tensor in enumerate(own) if tensor.dtype == dtype]
            rows = [own[index].detach().flatten(1) if own[index].dim() > 1 else own[index].unsqueeze(1) for index in indices]
            gathered = self._gather(torch.cat(rows, dim=1), sizes)
            columns_of = torch.split(gathered, [each.shape[1] for each in rows], dim=1)
            for index, columns in zip(indices, columns_of, strict=True):
                gathered_by_index[index] = columns.reshape(len(columns), *own[index].shape[1:])
        return [gathered_by_index[index] for index in range(len(own))]

    def _padded(self, own: Sequence[Tensor]) -> list[Tensor]:
        """Pads with zeros where another rank's texts are longer."""
        shapes = [shape for tensor in own for shape in tensor.shape[1:]]
        longest = torch.tensor(shapes)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        sizes = iter(longest.tolist())
        return [padded(tensor, [next(sizes) for _ in tensor.shape[1:]]) for tensor in own]

    def _all_gather(self, own: Tensor) -> list[Tensor]:
        """Gathers every rank's tensor, without gradients; shapes may differ."""
        own = own.detach().contiguous()
        shape = torch.tensor([own.dim(), *own.shape, *[0] * (_MAX_DIMENSIONS - own.dim())])
        shapes = [torch.empty_like(shape) for _ in range(self.world_size)]
        dist.all_gather(shapes, shape)
        by_rank = [torch.Size(each[1 : 1 + int(each[0])].tolist()) for each in shapes]
        longest = max(each.numel() for each in by_rank)
        flat = sendable(functional.pad(own.flatten(), (0, longest - own.numel())))
        pieces = [torch.empty_like(flat) for _ in range(self.world_size)]
        dist.all_gather(pieces, flat)
        return [piece.view(own.dtype)[: each.numel()].view(each) for piece, each in zip(pieces, by_rank, strict=True)]


class _LossModule(nn.Module):
    """The module that :class:`DistributedDataParallel` wraps: all trained weights; its forward pass computes losses of them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], Losses]) -> Losses:
        return compute()


_MESSAGE_BYTES = 256


_MAX_DIMENSIONS = 8
