"""The interface of a process group that trains one network: a rank per device, all on the same batches.

Each rank runs the networks on its shard of a batch. The outputs are gathered, so that every rank computes the loss of the whole
batch, whatever it compares, and backpropagates through its own shard alone. Invariants: weights, losses, metrics and torch's
global generators are the same on all ranks at every moment; random numbers that may differ, such as dropout's, are drawn inside
:meth:`ProcessGroup.rank_local_rng`. All ranks call the collectives in the same order. B batch, b a rank's shard of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from worker.distributed.rng import generator_states, restore_generators, seed_everything
from worker.methods.batch import DistillationBatch

T = TypeVar("T")
Losses = tuple[Tensor, ...]
"""A scalar for each network that is trained."""


class OutOfMemoryTogether(MemoryError):
    """Raised on every rank where a block of :meth:`ProcessGroup.together` ran out of memory on one."""


class ProcessGroup(Protocol):
    """The ranks of one attempt, as one of them sees them."""

    agrees_on_memory: bool
    """Whether the ranks tell each other in each block of :meth:`together` whether memory ran out, and average the gradients once
    in a step, so that no rank waits inside a backward pass; False at first."""

    @property
    def rank(self) -> int:
        """This rank, from 0."""

    @property
    def world_size(self) -> int:
        """The number of ranks."""

    @property
    def is_rank0(self) -> bool:
        """Whether this is rank 0, which writes the files and emits the events."""

    def shard(self, indices: Tensor) -> Tensor:
        """This rank's shard (b,) of a batch's indices (B,); if it is empty, a placeholder that is left out of every result."""

    def rank_local_rng(self) -> AbstractContextManager[object]:
        """A context in which random numbers come from this rank's own generators."""

    def seed(self, seed: int) -> None:
        """Seeds every generator: the global ones, equal on all ranks, and this rank's own."""

    def rng_states(self, device: torch.device) -> Any:
        """The states of the global generators and of this rank's own, to draw the same numbers again."""

    def set_rng_states(self, states: Any, device: torch.device) -> None:
        """Sets what :meth:`rng_states` read."""

    def together(self) -> AbstractContextManager[object]:
        """A block that all ranks leave, or none: if they agree on memory, and it runs out on one, all raise OutOfMemoryTogether.

        A rank whose memory runs out has run the same collectives as the others up to a block of theirs.
        """

    def average_gradients(self, module: nn.Module) -> None:
        """Averages the gradients of the module's weights over all ranks, if the backward passes have not."""

    def total(self, count: int) -> int:
        """The sum of a count over all ranks' shards."""

    def gather_batch(self, batch: DistillationBatch, *, num_samples: int) -> DistillationBatch:
        """Gathers a batch of ``num_samples`` from the ranks' shards; gradients flow back into this rank's shard."""

    def mean(self, value: Tensor, *, count: int) -> Tensor:
        """The mean over all ranks of means over ``count`` parts on each rank; its gradient flows back into ``value``."""

    def wrap_ddp(self, module: nn.Module) -> Callable[[Callable[[], Losses]], Losses]:
        """Returns what computes losses so that their gradients to the module's weights are averaged over all ranks."""

    def convert_sync_batchnorm(self, network: nn.Module) -> nn.Module:
        """The network with batch norm over whole batches in place of that over shards."""

    def all_gather_batches(
        self, items: Sequence[T], compute: Callable[[T], Mapping[str, Tensor]]
    ) -> Iterator[Mapping[str, Tensor]]:
        """Yields ``compute(item)`` for each item, in order, on every rank; each rank computes some of them."""

    def broadcast_from_rank0(self, value: T) -> T:
        """Rank 0's value, sent as JSON: for decisions that depend on a clock or a request, and must be the same on all ranks."""

    def all_true(self, condition: bool) -> bool:
        """Whether the condition holds on all ranks. A barrier: no rank continues before all have called it."""

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor."""

    def local_generator_states(self, device: torch.device) -> list[dict[str, Any]]:
        """The states of each rank's own generators, for a checkpoint."""

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Sets what :meth:`local_generator_states` read."""

    def is_peer_failure(self, error: BaseException) -> bool:
        """Whether the error is a failed collective, because another rank died."""


class SingleProcess:
    """The trivial group: one process on one device."""

    rank, world_size, is_rank0 = 0, 1, True
    agrees_on_memory: bool = False

    def shard(self, indices: Tensor) -> Tensor:
        return indices

    def rank_local_rng(self) -> AbstractContextManager[object]:
        return nullcontext()

    def seed(self, seed: int) -> None:
        seed_everything(seed)

    def rng_states(self, device: torch.device) -> Any:
        return generator_states(device)

    def set_rng_states(self, states: Any, device: torch.device) -> None:
        restore_generators(states, device)

    def together(self) -> AbstractContextManager[object]:
        return nullcontext()

    def average_gradients(self, module: nn.Module) -> None:
        pass

    def total(self, count: int) -> int:
        return count

    def gather_batch(self, batch: DistillationBatch, *, num_samples: int) -> DistillationBatch:
        return batch

    def mean(self, value: Tensor, *, count: int) -> Tensor:
        return value

    def wrap_ddp(self, module: nn.Module) -> Callable[[Callable[[], Losses]], Losses]:
        return lambda compute: compute()

    def convert_sync_batchnorm(self, network: nn.Module) -> nn.Module:
        return network

    def all_gather_batches(
        self, items: Sequence[T], compute: Callable[[T], Mapping[str, Tensor]]
    ) -> Iterator[Mapping[str, Tensor]]:
        return map(compute, items)

    def broadcast_from_rank0(self, value: T) -> T:
        return value

    def all_true(self, condition: bool) -> bool:
        return condition

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        return tensor

    def local_generator_states(self, device: torch.device) -> list[dict[str, Any]]:
        return []

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        pass

    def is_peer_failure(self, error: BaseException) -> bool:
        return False


SINGLE_PROCESS = SingleProcess()
