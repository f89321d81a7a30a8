"""The output head of a language model, and losses on it that never hold all tokens' logits at once.

N tokens, D hidden width, V vocabulary. Logits (N, V) in float32 are the largest tensors of a language model's training, and a
loss keeps several of them for its backward pass. Here the head is applied to a chunk of tokens at a time, and the gradients of
its loss are made at once (as Liger Kernel does: Hsu et al., 2024, arXiv:2410.10989). Invariant: beside gradients of the hidden
states' and the weights' own sizes, memory is that of one chunk, whatever N is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from worker.methods.batch import at_least_float32
from worker.methods.sequence import TokenLoss

CHUNK_LOGITS, CHUNK_TOKENS = 2**23, 256
"""Logits of one network in a chunk, 32 MiB in float32, and least tokens of a chunk: each chunk reads the whole head."""


def tokens_of_chunk(vocabulary: int) -> int:
    """Tokens of a chunk of logits, for a vocabulary of that size."""
    return max(CHUNK_TOKENS, CHUNK_LOGITS // vocabulary)


@dataclass(frozen=True)
class OutputHead:
    """The linear map from hidden states to logits."""

    weight: Tensor
    """(V, D)."""
    bias: Tensor | None = None
    """(V,)."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """Computes logits (N, V) of hidden states (N, D) in the hidden states' dtype, and returns float32 at least."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return at_least_float32(functional.linear(hidden, self.weight.to(hidden.dtype), bias))

    def detached(self) -> "OutputHead":
        """Returns the same head without gradients."""
        return OutputHead(self.weight.detach(), None if self.bias is None else self.bias.detach())


@dataclass(frozen=True)
class TeacherStates:
    """The teacher's hidden states for the same tokens, and the loss that compares its logits with the student's."""

    hidden: Tensor
    """(N, ·)."""
    head: OutputHead
    loss: TokenLoss
    weight: float


def token_mean(
    hidden: Tensor,
    head: OutputHead,
    labels: Tensor,
    *,
    label_weight: float,
    teacher_states: TeacherStates | None = None,
    chunk_tokens: int | None = None,
) -> Tensor:
    """``weight · loss(student, teacher) + label_weight · CE(labels, student)``, mean over the tokens; 0 if there is none.

    Hidden states (N, D) and labels (N,) are those of the tokens that count, and of no others. The gradient goes to the hidden
    states and to the head.
    """
    vocabulary = max(head.weight.shape[0], 0 if teacher_states is None else teacher_states.head.weight.shape[0])

    def losses(logits: Tensor, rows: slice) -> Tensor:
        parts = []
        if label_weight:
            parts.append(label_weight * functional.cross_entropy(logits, labels[rows], reduction="none"))
        if teacher_states is not None:
            with torch.no_grad():
                teacher_logits = teacher_states.head(teacher_states.hidden[rows])
            parts.append(teacher_states.weight * teacher_states.loss(logits, teacher_logits))
        return torch.stack(parts).sum(dim=0)

    chunk_tokens = chunk_tokens or tokens_of_chunk(vocabulary)
    if not torch.is_grad_enabled():  # an autograd.Function does not see it
        hidden, head = hidden.detach(), head.detached()
    mean: Tensor = _ChunkedMean.apply(hidden, head.weight, head.bias, losses, chunk_tokens)  # type: ignore[no-untyped-call]
    return mean


class _ChunkedMean(torch.autograd.Function):
    """The mean of ``losses(logits, rows)``, which returns a loss for each of the tokens ``rows``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        losses: Callable[[Tensor, slice], Tensor],
        chunk_tokens: int,
    ) -> Tensor:
        needs_grad = ctx.needs_input_grad[:3]
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(each) if each is not None and needed else None
            for each, needed in zip((hidden, weight, bias), needs_grad, strict=True)
        )
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        for start in range(0, len(hidden), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            loss, grad_logits = _with_gradients(OutputHead(weight, bias)(hidden[rows]), rows, losses, needs_grad=any(needs_grad))
            total += loss
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits.to(hidden.dtype) @ weight.to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += grad_logits.to(hidden.dtype).T @ hidden[rows]
            if grad_bias is not None:
                grad_bias += grad_logits.sum(dim=0)
            del grad_logits  # before the next chunk is made
        num_tokens = ctx.num_tokens = max(1, len(hidden))
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total / num_tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        scale = grad / ctx.num_tokens
        return *(None if each is None else each * scale for each in ctx.saved_tensors), None, None


def _with_gradients(
    logits: Tensor, rows: slice, losses: Callable[[Tensor, slice], Tensor], *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """Computes the sum of a chunk's losses and its gradient to the logits; zeros if the gradient is not needed.

    Of the sum, not the mean over all tokens: that would be too small for float16.
    """
    with torch.set_grad_enabled(needs_grad):
        loss = losses(logits.requires_grad_(needs_grad), rows).sum()
    return loss.detach(), torch.autograd.grad(loss, logits)[0] if needs_grad else logits.new_zeros(()).expand_as(logits)
