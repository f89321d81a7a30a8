"""Losses on a language model's output head, in chunks, against the same losses on all logits at once."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worker.methods.output_head import OutputHead, TeacherStates, token_mean
from worker.methods.sequence import generalized_jsd, universal_logit

NUM_TOKENS, WIDTH, VOCABULARY = 7, 5, 11


def loss_of(name: str) -> Any:
    return {
        "jsd": lambda student, teacher: generalized_jsd(student, teacher, beta=0.3, temperature=1.5),
        "forward": lambda student, teacher: generalized_jsd(student, teacher, beta=0.0, temperature=2.0),
        "uld": lambda student, teacher: universal_logit(student, teacher, temperature=1.0),
    }[name]


class Tokens:
    """Hidden states, heads and labels in float64; the teacher is wider, and with ``uld`` has another vocabulary."""

    def __init__(self, *, name: str = "jsd", bias: bool = True, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(0)

        def made(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.hidden = made(NUM_TOKENS, WIDTH).requires_grad_()
        self.weight = made(VOCABULARY, WIDTH).requires_grad_()
        self.bias = made(VOCABULARY).requires_grad_() if bias else None
        self.labels = torch.randint(VOCABULARY, (NUM_TOKENS,), generator=generator)
        teacher_vocabulary = VOCABULARY + 3 if name == "uld" else VOCABULARY
        teacher = OutputHead(made(teacher_vocabulary, WIDTH + 2).requires_grad_(), made(teacher_vocabulary))
        self.teacher_states = TeacherStates(made(NUM_TOKENS, WIDTH + 2).requires_grad_(), teacher, loss_of(name), weight=0.7)

    @property
    def learned(self) -> list[Tensor]:
        return [each for each in (self.hidden, self.weight, self.bias) if each is not None]

    def chunked(self, *, chunk_tokens: int | None, label_weight: float = 0.4) -> Tensor:
        head = OutputHead(self.weight, self.bias)
        return token_mean(
            self.hidden,
            head,
            self.labels,
            label_weight=label_weight,
            teacher_states=self.teacher_states,
            chunk_tokens=chunk_tokens,
        )

    def whole(self, *, label_weight: float = 0.4) -> Tensor:
        logits = functional.linear(self.hidden, self.weight, self.bias)
        answers = functional.linear(
            self.teacher_states.hidden, self.teacher_states.head.weight, self.teacher_states.head.bias
        ).detach()
        return 0.7 * self.teacher_states.loss(logits, answers).mean() + label_weight * functional.cross_entropy(
            logits, self.labels
        )


@pytest.mark.parametrize("chunk_tokens", [1, 3, NUM_TOKENS, 100, None])
@pytest.mark.parametrize("label_weight", [0.0, 0.4])
@pytest.mark.parametrize(("name", "bias"), [("jsd", True), ("forward", False), ("uld", True)])
def test_chunks_of_any_size_give_the_loss_and_the_gradients_of_the_whole(
    name: str, bias: bool, label_weight: float, chunk_tokens: int | None
) -> None:
    tokens = Tokens(name=name, bias=bias)
    whole, chunked = tokens.whole(label_weight=label_weight), tokens.chunked(chunk_tokens=chunk_tokens, label_weight=label_weight)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)
    expected, found = (torch.autograd.grad(3 * loss, tokens.learned) for loss in (whole, chunked))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("chunk_tokens", [3, NUM_TOKENS])
@pytest.mark.parametrize("name", ["jsd", "uld"])
def test_the_gradients_agree_with_finite_differences(name: str, chunk_tokens: int) -> None:
    tokens = Tokens(name=name)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return token_mean(
            hidden,
            OutputHead(weight, bias),
            tokens.labels,
            label_weight=0.4,
            teacher_states=tokens.teacher_states,
            chunk_tokens=chunk_tokens,
        )

    assert torch.autograd.gradcheck(loss, tokens.learned)


def test_the_teacher_learns_nothing() -> None:
    tokens = Tokens()
    torch.autograd.backward(tokens.chunked(chunk_tokens=2))
    assert tokens.teacher_states.hidden.grad is None
    assert tokens.teacher_states.head.weight.grad is None


def test_a_frozen_head_leaves_the_gradient_to_the_hidden_states() -> None:
    tokens = Tokens()
    expected = torch.autograd.grad(tokens.whole(), tokens.hidden)
    tokens.weight.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(tokens.chunked(chunk_tokens=3), tokens.hidden), expected)


def test_without_gradients_the_loss_is_the_same_and_none_are_made() -> None:
    tokens = Tokens()
    expected, inner, learned = tokens.whole().detach(), tokens.teacher_states.loss, []

    def watched(student: Tensor, teacher: Tensor) -> Tensor:
        learned.append(student.requires_grad)
        return inner(student, teacher)

    tokens.teacher_states = replace(tokens.teacher_states, loss=watched)
    with torch.no_grad():
        loss = tokens.chunked(chunk_tokens=3)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected)
    assert learned == [False] * 3


def test_without_a_teacher_it_is_the_cross_entropy() -> None:
    tokens = Tokens()
    loss = token_mean(tokens.hidden, OutputHead(tokens.weight), tokens.labels, label_weight=1.0, chunk_tokens=2)
    whole = functional.cross_entropy(functional.linear(tokens.hidden, tokens.weight), tokens.labels)
    torch.testing.assert_close(loss, whole)


def test_no_token_at_all_has_no_loss_and_no_gradient() -> None:
    tokens = Tokens()
    hidden = tokens.hidden.detach()[:0].requires_grad_()
    loss = token_mean(hidden, OutputHead(tokens.weight), tokens.labels[:0], label_weight=1.0)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert tokens.weight.grad is not None
    assert bool((tokens.weight.grad == 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hidden_states_meet_a_float32_head_and_are_compared_in_float32(dtype: torch.dtype) -> None:
    tokens, exact = Tokens(dtype=torch.float32), Tokens()
    tokens.hidden = tokens.hidden.detach().to(dtype).requires_grad_()
    loss = tokens.chunked(chunk_tokens=3)
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss, exact.whole().float(), rtol=0.05, atol=0.05)
    to_hidden, to_weight = torch.autograd.grad(loss, [tokens.hidden, tokens.weight])
    assert (to_hidden.dtype, to_weight.dtype) == (dtype, torch.float32)
    expected = torch.autograd.grad(exact.whole(), exact.weight)[0].float()
    torch.testing.assert_close(to_weight, expected, rtol=0.1, atol=0.02)
