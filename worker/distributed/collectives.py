"""What ranks exchange: shares gathered to the whole batch, means over all ranks. B batch, b a rank's share of it."""

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
    """Shares (b, …) of sizes that all know to the whole (B, …).

    All ranks take the same loss of the whole, so its gradient needs no message. Each sends that of its own share back, times the
    number of ranks: weights are given the mean of what comes to them on each.
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
    def backward(ctx: Any, slope: Tensor) -> Any:
        own = torch.split(slope, list(ctx.sizes))[ctx.index] * len(ctx.sizes)
        return own if len(own) else slope.new_zeros(ctx.shape), None, None


class WeightedMean(torch.autograd.Function):
    """The mean of every rank's value, by its weight; the gradient is that of the own value, times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: int, count: int) -> Tensor:
        sums = torch.stack([value.double() * weight, torch.full_like(value, weight, dtype=torch.float64)])
        dist.all_reduce(sums)
        total = sums[1].clamp(min=1)
        ctx.save_for_backward((count * weight / total).to(value.dtype))
        return (sums[0] / total).to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        (factor,) = ctx.saved_tensors
        return slope * factor, None, None


def split_tensors(step: DistillationBatch) -> tuple[list[Tensor], list[Tensor]]:
    """What the student said, and everything else; see :func:`rebuild_batch`."""
    learnt, given = _spread(step.student)
    return learnt, [
        *given,
        *(tensor for each in (_spread(step.teacher) if step.teacher else ()) for tensor in each),
        step.labels,
        step.indices,
        *([step.mixture.partner_labels, step.mixture.shares] if step.mixture else []),
    ]


def rebuild_batch(like: DistillationBatch, learnt: Sequence[Tensor], given: Sequence[Tensor]) -> DistillationBatch:
    """The step of these tensors, which came of one ``like`` it."""
    rest = iter(given)
    student = _outputs_of(like.student, iter(learnt), rest)
    return replace(
        like,
        student=student,
        teacher=_outputs_of(like.teacher, rest, rest) if like.teacher else None,
        labels=next(rest),
        indices=next(rest),
        mixture=MixedLabels(next(rest), next(rest)) if like.mixture else None,
    )


def _spread(outputs: Outputs) -> tuple[list[Tensor], list[Tensor]]:
    return [outputs.logits, *outputs.features.values()], [] if outputs.counted is None else [outputs.counted]


def _outputs_of(like: Outputs, values: Iterator[Tensor], counted: Iterator[Tensor]) -> Outputs:
    return Outputs(next(values), {path: next(values) for path in like.features}, None if like.counted is None else next(counted))


def padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """(b, …) with zeros at the end of every dimension but the first, up to ``shape``."""
    missing = [(0, wanted - there) for wanted, there in zip(shape, tensor.shape[1:], strict=True)]
    if not any(more for _, more in missing):
        return tensor
    return functional.pad(tensor, [size for each in reversed(missing) for size in each])


def _padded_rows(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])]) if len(rows) < count else rows


def sendable(tensor: Tensor) -> Tensor:
    """Truth values are sent as bytes."""
    return (tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor).contiguous()
