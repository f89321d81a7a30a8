"""The batches of an epoch: which samples of a training split each step sees, and how many steps an epoch has.

Without transfer rows an epoch is one pass over the split, in batches of ``batch_size``. With them each batch has its share of
transfer rows, and an epoch is one pass over the rows that lead, with as many of the others as their share takes. Invariant: the
batches depend on (seed, epoch) alone, as drawn by the ``order`` that is passed in. N samples, B batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from service.spec.training import TrainingSpec

Order = Callable[[int, int], Tensor]
"""From a number of samples N and the number of a stream to a permutation (N,) of the samples; stream 0 is the leading rows'."""


@dataclass(frozen=True)
class TransferRows:
    """The last rows of a training split, which come from ``dataset.transfer`` and have no labels."""

    count: int
    fraction: float
    """Share of each batch that they are, above 0 and below 1."""
    lead: bool = False
    """Whether an epoch is one pass over them, rather than over the rows before them: those have no labels either."""

    def sizes(self, num_samples: int) -> tuple[int, int]:
        """How many of the split's ``num_samples`` an epoch passes over once, and how many it draws from."""
        others = num_samples - self.count
        return (self.count, others) if self.lead else (others, self.count)

    def shares(self, batch_size: int) -> tuple[int, int]:
        """How many samples of a batch, of two or more, are leading rows and how many others; one of each at least."""
        share = min(max(1, round(batch_size * self.fraction)), batch_size - 1)
        return (share, batch_size - share) if self.lead else (batch_size - share, share)

    def drawn_beside(self, num_leading: int, *, batch_size: int) -> int:
        """How many of the others stand in a batch beside so many leading rows: an epoch's last batch is another size."""
        share, drawn = self.shares(batch_size)
        return max(1, round(num_leading * drawn / share))


def epoch_batches(num_samples: int, *, batch_size: int, order: Order, transfer: TransferRows | None = None) -> list[Tensor]:
    """Lists the sample indices (B,) of an epoch's batches."""
    if transfer is None:
        return split_epoch(order(num_samples, 0), batch_size=batch_size)
    leading, others = transfer.sizes(num_samples)
    share, _ = transfer.shares(batch_size)
    first_leading, first_other = (others, 0) if transfer.lead else (0, leading)
    batches = split_epoch(order(leading, 0) + first_leading, batch_size=share)
    counts = [transfer.drawn_beside(len(batch), batch_size=batch_size) for batch in batches]
    passes = math.ceil(sum(counts) / others)
    pool = torch.cat([order(others, 1 + index) for index in range(passes)]) + first_other
    pieces = torch.split(pool[: sum(counts)], counts)
    return [torch.cat(pair) for pair in zip(batches, pieces, strict=True)]


def split_epoch(order: Tensor, *, batch_size: int) -> list[Tensor]:
    """Splits an epoch's order (N,) into batches. A last batch of one sample joins its predecessor, for batch norm needs two."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def samples_per_epoch(num_samples: int, *, batch_size: int, transfer: TransferRows | None = None) -> int:
    """Number of samples in an epoch's batches, each counted as often as it occurs."""
    if transfer is None:
        return num_samples
    leading, _ = transfer.sizes(num_samples)
    share, _ = transfer.shares(batch_size)
    num_batches = count_batches(num_samples, batch_size=batch_size, transfer=transfer)
    sizes = [share] * (num_batches - 1)
    sizes.append(leading - sum(sizes))
    return leading + sum(transfer.drawn_beside(size, batch_size=batch_size) for size in sizes)


def num_epochs(spec: TrainingSpec, num_samples: int, transfer: TransferRows | None = None) -> int:
    """Number of epochs that a training begins, unless it stops early."""
    if spec.max_steps is None:
        return spec.epochs or 1
    return math.ceil(spec.max_steps / steps_per_epoch(spec, num_samples, transfer))


def count_steps(spec: TrainingSpec, num_samples: int, transfer: TransferRows | None = None) -> int:
    """Number of optimizer steps of a training, unless it stops early."""
    return spec.max_steps or (spec.epochs or 1) * steps_per_epoch(spec, num_samples, transfer)


def steps_per_epoch(spec: TrainingSpec, num_samples: int, transfer: TransferRows | None = None) -> int:
    """Number of optimizer steps in an epoch."""
    num_batches = count_batches(num_samples, batch_size=spec.batch_size, transfer=transfer)
    return math.ceil(num_batches / spec.gradient_accumulation)


def count_batches(num_samples: int, *, batch_size: int, transfer: TransferRows | None = None) -> int:
    """Number of batches that :func:`epoch_batches` makes."""
    if transfer is not None:
        num_samples, batch_size = transfer.sizes(num_samples)[0], transfer.shares(batch_size)[0]
    whole, rest = divmod(num_samples, batch_size)
    return max(1, whole + (rest > 1))
