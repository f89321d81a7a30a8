"""Collectives with gradients: gathering a batch from its shards, means over all ranks. B batch, b a rank's shard of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from worker.methods.batch import DistillationBatch, Outputs
from worker.targets import MixedLabels


class GatherShards(torch.autograd.Function):
    """Gathers shards (b, …), whose sizes all ranks know, into the batch (B, …).

    All ranks compute the same loss of the whole batch, so its gradient needs no communication. Each rank backpropagates that of
    its own shard, times the number of ranks, because DDP averages the gradients of the weights over the ranks.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: tuple[int, ...], index: int) -> Tensor:
        ctx.sizes, ctx.index, ctx.shape = sizes, index, own.shape
        longest = max(sizes)
        sent = sendable(_padded_rows(own[: sizes[index]], longest))
        pieces = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(pieces, sent)
        return torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)]).view(own.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        own = torch.split(grad, list(ctx.sizes))[ctx.index] * len(ctx.sizes)
        return own if len(own) else grad.new_zeros(ctx.shape), None, None


class WeightedMean(torch.autograd.Function):
    """The weighted mean of every rank's value; the gradient goes to the rank's own value, times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: int, count: int) -> Tensor:
        sums = torch.stack([value.double() * weight, torch.full_like(value, weight, dtype=torch.float64)])
        dist.all_reduce(sums)
        total = sums[1].clamp(min=1)
        ctx.save_for_backward((count * weight / total).to(value.dtype))
        return (sums[0] / total).to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (factor,) = ctx.saved_tensors
        return grad * factor, None, None


def split_tensors(batch: DistillationBatch) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of a batch: the student's, which carry gradients, and all others. :func:`rebuild_batch` is the inverse."""
    differentiable, constant = _flatten(batch.student)
    return differentiable, [
        *constant,
        *(tensor for each in (_flatten(batch.teacher) if batch.teacher else ()) for tensor in each),
        batch.labels,
        batch.indices,
        *([batch.mixture.partner_labels, batch.mixture.shares] if batch.mixture else []),
        *([batch.mixture.partner_weights] if batch.mixture and batch.mixture.partner_weights is not None else []),
        *([batch.weights] if batch.weights is not None else []),
    ]


def rebuild_batch(like: DistillationBatch, differentiable: Sequence[Tensor], constant: Sequence[Tensor]) -> DistillationBatch:
    """The batch of these tensors, with the structure of ``like``."""
    rest = iter(constant)
    student = _rebuild_outputs(like.student, iter(differentiable), rest)
    return replace(
        like,
        student=student,
        teacher=_rebuild_outputs(like.teacher, rest, rest) if like.teacher else None,
        labels=next(rest),
        indices=next(rest),
        mixture=_rebuild_mixture(like.mixture, rest) if like.mixture else None,
        weights=None if like.weights is None else next(rest),
    )


def _flatten(outputs: Outputs) -> tuple[list[Tensor], list[Tensor]]:
    return [outputs.logits, *outputs.features.values()], [] if outputs.token_mask is None else [outputs.token_mask]


def _rebuild_outputs(like: Outputs, values: Iterator[Tensor], token_mask: Iterator[Tensor]) -> Outputs:
    return Outputs(
        next(values), {path: next(values) for path in like.features}, None if like.token_mask is None else next(token_mask)
    )


def _rebuild_mixture(like: MixedLabels, rest: Iterator[Tensor]) -> MixedLabels:
    return MixedLabels(next(rest), next(rest), None if like.partner_weights is None else next(rest))


def padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Pads (b, …) with zeros at the end of every dimension but the first, up to ``shape``."""
    missing = [(0, target - size) for target, size in zip(shape, tensor.shape[1:], strict=True)]
    if not any(after for _, after in missing):
        return tensor
    return functional.pad(tensor, [size for each in reversed(missing) for size in each])


def _padded_rows(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])]) if len(rows) < count else rows


def sendable(tensor: Tensor) -> Tensor:
    """A contiguous tensor that every backend can send: booleans as bytes."""
    return (tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor).contiguous()
