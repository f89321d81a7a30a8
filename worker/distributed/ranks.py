"""The processes that train one network side by side: a rank each, every one on its own device, all on the same batches.

Each rank runs the networks on its share of a batch; what they say is gathered, so that every rank takes the loss of the whole
batch, whatever it compares, and sends its gradient back through its own share alone. Invariants: weights, losses, measures and
torch's global generators are the same on all ranks at every moment; what may differ, such as dropout, is drawn inside
:meth:`ProcessGroup.rank_local_rng`. All ranks call the collectives in the same order. B batch, b a rank's share of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from worker.distributed.rng import seed_everything
from worker.methods.batch import DistillationBatch

T = TypeVar("T")
Losses = Callable[[Tensor], tuple[Tensor, ...]]
"""From a batch's sample indices (B,) to its losses, a scalar for each network that is trained."""


class ProcessGroup(Protocol):
    """The ranks of one attempt, as one of them sees them."""

    @property
    def rank(self) -> int:
        """This rank, from 0."""

    @property
    def world_size(self) -> int:
        """How many there are."""

    @property
    def is_rank0(self) -> bool:
        """Whether this is the one that writes files and speaks for all."""

    def shard(self, indices: Tensor) -> Tensor:
        """This rank's part (b,) of a batch's indices (B,); of a batch that has none for it a stand-in that counts nothing."""

    def rank_local_rng(self) -> AbstractContextManager[object]:
        """What is drawn inside comes from this rank's own generators."""

    def seed(self, seed: int) -> None:
        """Seeds every generator, those that all ranks have in common and each one's own."""

    def gather_batch(self, step: DistillationBatch, *, num_samples: int) -> DistillationBatch:
        """From a rank's share of a batch of ``num_samples`` to all of it; gradients go back to the share."""

    def mean(self, value: Tensor, *, count: int) -> Tensor:
        """The mean over all ranks of what is a mean over ``count`` parts here; its gradient goes back to ``value``."""

    def wrap_ddp(self, module: nn.Module, losses: Losses) -> Losses:
        """``losses`` whose gradients to the learner's weights are those of all ranks together."""

    def convert_sync_batchnorm(self, network: nn.Module) -> nn.Module:
        """The network with what it takes to be trained in shares: batch norm over whole batches."""

    def all_gather_batches(
        self, places: Sequence[T], compute: Callable[[T], Mapping[str, Tensor]]
    ) -> Iterator[Mapping[str, Tensor]]:
        """What ``compute`` gives for each place, in their order, on every rank; each rank computes some of them."""

    def broadcast_from_rank0(self, said: T) -> T:
        """What the first rank says, in JSON: none may decide alone by its own clock."""

    def all_true(self, is_so: bool) -> bool:
        """Whether it is so on all ranks. None goes on before all have come here."""

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        """The first rank's."""

    def local_generator_states(self, device: torch.device) -> list[dict[str, Any]]:
        """The states of each rank's own generators, for a checkpoint."""

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Sets what :meth:`local_generator_states` read."""

    def is_peer_failure(self, error: BaseException) -> bool:
        """Whether the error says only that another rank is gone."""


class SingleProcess:
    """The one process of a job on one device."""

    rank, world_size, is_rank0 = 0, 1, True

    def shard(self, indices: Tensor) -> Tensor:
        return indices

    def rank_local_rng(self) -> AbstractContextManager[object]:
        return nullcontext()

    def seed(self, seed: int) -> None:
        seed_everything(seed)

    def gather_batch(self, step: DistillationBatch, *, num_samples: int) -> DistillationBatch:
        return step

    def mean(self, value: Tensor, *, count: int) -> Tensor:
        return value

    def wrap_ddp(self, module: nn.Module, losses: Losses) -> Losses:
        return losses

    def convert_sync_batchnorm(self, network: nn.Module) -> nn.Module:
        return network

    def all_gather_batches(
        self, places: Sequence[T], compute: Callable[[T], Mapping[str, Tensor]]
    ) -> Iterator[Mapping[str, Tensor]]:
        return map(compute, places)

    def broadcast_from_rank0(self, said: T) -> T:
        return said

    def all_true(self, is_so: bool) -> bool:
        return is_so

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        return tensor

    def local_generator_states(self, device: torch.device) -> list[dict[str, Any]]:
        return []

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        pass

    def is_peer_failure(self, error: BaseException) -> bool:
        return False


SINGLE_PROCESS = SingleProcess()
