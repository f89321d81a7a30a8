"""Batches in parts: one forward and backward pass after the other, for the same loss and gradient in less memory.

A loss that is a mean over predictions is the weighted sum of its parts' losses. Any other one, which compares samples with each
other, counts them, or has a norm of its own, sees the whole batch in two passes (Gao et al., 2021, arXiv:2101.06983): the outputs
of all parts, without a graph; the loss of the whole and its gradient to them; then each part again, with the same random numbers,
whose outputs are given their gradient. B batch, b part.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from worker.distributed.collectives import rebuild_batch, split_tensors
from worker.distributed.ranks import ProcessGroup
from worker.methods.batch import DistillationBatch, Loss
from worker.methods.compared import concatenate_padded

Pieces = Iterator[Callable[[], Tensor]]
"""The loss of a batch by its parts: functions whose values sum to it, and whose gradients sum to its gradient. Each is called,
and its value backpropagated, before the next is asked for."""


def shares(counts: Sequence[int]) -> list[float]:
    """Each count as a share of their sum."""
    total = max(1, sum(counts))
    return [count / total for count in counts]


def two_passes(
    forward: Callable[[Tensor, bool], DistillationBatch],
    loss: Loss,
    parts: Sequence[Tensor],
    *,
    group: ProcessGroup,
    device: torch.device,
) -> Pieces:
    """The loss of a whole batch, from the sample indices (b,) of its parts.

    ``forward`` computes the outputs on a part; it is told whether it is called for it again, for the student's outputs alone.
    """
    states: list[Any] = []
    batches: list[DistillationBatch] = []
    for part in parts:
        states.append(group.rng_states(device))
        # With a graph, at once let go of: the same kernels as in the second pass draw the same random numbers.
        batches.append(_detached(forward(part, False)))
    whole, outputs = _whole(batches)
    places = _places(batches)
    del batches
    value = loss(whole)
    own = [weight for weight in loss.parameters() if weight.requires_grad] if isinstance(loss, nn.Module) else []
    gradients = torch.autograd.grad(value, [*outputs, *own], allow_unused=True)
    value, after = value.detach(), group.rng_states(device)

    def piece(index: int) -> Tensor:
        group.set_rng_states(states[index], device)
        again, _ = split_tensors(forward(parts[index], True))
        terms = [
            (tensor, None if gradient is None else gradient[place])
            for tensor, gradient, place in zip(again, gradients, places[index], strict=False)
        ]
        total = torch.zeros_like(value)
        if index == 0:  # the loss has one value, and its own weights one gradient
            total, terms = value, [*terms, *zip(own, gradients[len(outputs) :], strict=True)]
        for tensor, gradient in terms:
            if gradient is not None:
                product = (tensor * gradient).sum()
                total = total + (product - product.detach())
        return total

    for index in range(len(parts)):
        yield partial(piece, index)
    group.set_rng_states(after, device)


def _detached(batch: DistillationBatch) -> DistillationBatch:
    differentiable, constant = split_tensors(batch)
    return rebuild_batch(batch, [tensor.detach() for tensor in differentiable], constant)


def _whole(batches: Sequence[DistillationBatch]) -> tuple[DistillationBatch, list[Tensor]]:
    """The parts of a batch as one, and the student's tensors in it, which are leaves with a gradient."""
    by_part = [split_tensors(batch) for batch in batches]
    outputs = [concatenate_padded(pieces).requires_grad_() for pieces in zip(*(each for each, _ in by_part), strict=True)]
    constant = [concatenate_padded(pieces) for pieces in zip(*(each for _, each in by_part), strict=True)]
    return rebuild_batch(batches[0], outputs, constant), outputs


def _places(batches: Sequence[DistillationBatch]) -> list[list[tuple[slice, ...]]]:
    """For each part, where the whole batch has each of the student's tensors; a part's texts may be shorter."""
    starts, places = [0] * len(split_tensors(batches[0])[0]), []
    for batch in batches:
        tensors, _ = split_tensors(batch)
        places.append(
            [
                (slice(start, start + len(tensor)), *map(slice, tensor.shape[1:]))
                for start, tensor in zip(starts, tensors, strict=True)
            ]
        )
        starts = [start + len(tensor) for start, tensor in zip(starts, tensors, strict=True)]
    return places
