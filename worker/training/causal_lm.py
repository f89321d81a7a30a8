"""What a batch of tokens teaches a causal language model. N rows, B batch, L tokens of a row, M tokens that count.

The teacher is asked in each step: its answers, a distribution over the vocabulary for every token, would not fit into memory.
Losses are taken on hidden states, a few tokens' logits at a time. Texts that the teacher writes are written once, before the
first step, and again the same after an interruption; what the student writes is drawn from torch's global generator. Each of
several ranks has the networks read its rows of a batch; the loss is the mean over all ranks' tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from service.spec.language_fit import LEAST_PROMPT
from service.spec.methods import OnPolicy, SequenceLevel
from worker.data import Data, Preprocessing, UnusableData
from worker.data.language import Framing, TokenRows, paired, predictions, prompts_of
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import JobFault
from worker.evaluation.precision import Precision
from worker.methods.output_head import OutputHead, TeacherStates, token_mean
from worker.methods.sequence import token_loss
from worker.models.generation import Decoding, write
from worker.models.language_network import LanguageNetwork
from worker.training.loop import Criterion

_ROWS_AT_ONCE = 32
"""That the teacher writes; part of what makes the same texts again."""


@dataclass(frozen=True)
class NextTokenCriterion:
    """The cross-entropy with the texts' own tokens: what a network without a teacher learns from."""

    network: LanguageNetwork
    samples: Samples
    group: ProcessGroup = SINGLE_PROCESS

    def loss(self, indices: Tensor, precision: Precision) -> Tensor:
        """Mean over the tokens."""
        rows = _batch(self.samples, self.group.shard(indices))
        return _text_loss(self.network, *rows, precision, weight=1.0, group=self.group)


@dataclass(frozen=True)
class LanguageTeacher:
    """The teacher of a causal language model, in ``eval()``."""

    network: LanguageNetwork
    framing: Framing
    """Of its tokenizer."""
    row_tokens: int
    """Most tokens of a row."""
    samples: Samples | None = None
    """The training rows by its own tokenizer; None: it reads the student's."""

    @classmethod
    def of(cls, network: nn.Module, reads: Preprocessing) -> Self:
        """A teacher that reads the student's rows. Raises TypeError for one that is no language model."""
        if not isinstance(network, LanguageNetwork) or not isinstance(reads, LanguagePreprocessing):
            raise TypeError(f"{type(network).__name__} is no language model")
        return cls(network, reads.framing, reads.max_length)


@dataclass(frozen=True)
class DistributionCriterion:
    """``forward-kl``, ``reverse-kl``, ``jsd`` and ``uld``: the teacher's distribution of each next token of the texts."""

    method: Any
    student: LanguageNetwork
    samples: Samples
    teacher: LanguageTeacher
    group: ProcessGroup = SINGLE_PROCESS

    def loss(self, indices: Tensor, precision: Precision) -> Tensor:
        """Mean over the tokens; with two tokenizers, over those that have a partner in the other's row."""
        own = self.group.shard(indices)
        ids, mask = _batch(self.samples, own)
        weight = self.method.label_weight
        if self.teacher.samples is None:
            networks = self.student, self.teacher.network
            return _distillation_loss(self.method, *networks, ids, mask, precision, label_weight=weight, group=self.group)
        their_ids, their_mask = _batch(self.teacher.samples, own)
        our_mask, their_mask = paired(mask, their_mask)
        with self.group.rank_local_rng(), precision.forward_pass():
            hidden = self.student.hidden(ids)
        states, labels = predictions(hidden, ids, our_mask)
        answers, _ = _teacher_states(self.teacher.network, their_ids, their_mask, precision)
        teacher_states = TeacherStates(answers, self.teacher.network.head, token_loss(self.method), self.method.weight)
        by_partners = token_mean(states, self.student.head, labels, label_weight=0.0, teacher_states=teacher_states)
        loss = self.group.mean(by_partners, count=len(labels))
        if weight:
            states, labels = predictions(hidden, ids, mask)
            by_labels = token_mean(states, self.student.head, labels, label_weight=weight)
            loss = loss + self.group.mean(by_labels, count=len(labels))
        return loss


@dataclass(frozen=True)
class SequenceLevelCriterion:
    """``sequence``: the texts that the teacher wrote, one for each row."""

    method: SequenceLevel
    student: LanguageNetwork
    samples: Samples
    written: Samples
    group: ProcessGroup = SINGLE_PROCESS

    def loss(self, indices: Tensor, precision: Precision) -> Tensor:
        """Mean over what the teacher wrote, and over the texts' own tokens."""
        own = self.group.shard(indices)
        rows = _batch(self.written, own)
        loss = _text_loss(self.student, *rows, precision, weight=self.method.weight, group=self.group)
        if self.method.label_weight:
            texts = _batch(self.samples, own)
            loss = loss + _text_loss(self.student, *texts, precision, weight=self.method.label_weight, group=self.group)
        return loss


@dataclass(frozen=True)
class OnPolicyCriterion:
    """``on-policy``: in a share of the batches the teacher's distributions on what the student writes, else on the texts."""

    method: OnPolicy
    student: LanguageNetwork
    samples: Samples
    teacher: LanguageTeacher
    group: ProcessGroup = SINGLE_PROCESS

    def loss(self, indices: Tensor, precision: Precision) -> Tensor:
        """Mean over the tokens that the student wrote, or over the texts'."""
        is_own = bool(torch.rand(()) < self.method.student_share)
        ids, mask = _batch(self.samples, self.group.shard(indices))
        if is_own:
            with self.group.rank_local_rng():
                rows = self._written(ids, mask)
            ids, mask = rows.ids, rows.mask
        label_weight = 0.0 if is_own else self.method.label_weight
        networks = self.student, self.teacher.network
        return _distillation_loss(self.method, *networks, ids, mask, precision, label_weight=label_weight, group=self.group)

    def _written(self, ids: Tensor, mask: Tensor) -> TokenRows:
        method = self.method
        prompts = prompts_of(
            ids,
            mask,
            self.teacher.framing,
            prompt_tokens=method.prompt_tokens,
            longest=self.teacher.row_tokens - method.max_new_tokens,
        )
        decoding = Decoding(method.max_new_tokens, temperature=method.sampling_temperature)
        return write(self.student.model, *prompts, self.teacher.framing, decoding)


def language_criterion(
    method: Any,
    student: LanguageNetwork,
    samples: Samples,
    teacher: LanguageTeacher,
    *,
    written: Samples | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Criterion:
    """What a student of this method learns from its batches; ``written`` is what :func:`generate_texts` made."""
    match method:
        case SequenceLevel() if written is not None:
            return SequenceLevelCriterion(method, student, samples, written, group)
        case OnPolicy():
            return OnPolicyCriterion(method, student, samples, teacher, group)
        case _:
            return DistributionCriterion(method, student, samples, teacher, group)


def check_generation_fits(method: Any, row_tokens: int) -> None:
    """Raises JobFault where a row has no place for a prompt and what is to be written behind it."""
    if isinstance(method, SequenceLevel | OnPolicy) and method.max_new_tokens > row_tokens - LEAST_PROMPT:
        raise JobFault(
            "invalid_spec",
            f"The networks read rows of {row_tokens} tokens, and {method.max_new_tokens} are to be written behind a prompt.",
            hint=f"Set max_new_tokens to {row_tokens - LEAST_PROMPT} or less, or raise dataset.row_tokens.",
            details={"pointer": "/method/max_new_tokens"},
        )


def check_splits_have_rows(data: Data, reads: LanguagePreprocessing) -> None:
    """Raises UnusableData where a split makes no rows, such as one of fewer tokens than a row has; the message names it."""
    for name, split in data.splits.items():
        try:
            reads.rows(split)
        except UnusableData as error:
            raise UnusableData(f"the {name} split: {error}") from error


def generate_texts(
    method: SequenceLevel,
    teacher: LanguageTeacher,
    samples: Samples,
    *,
    seed: int,
    after_batch: Callable[[int], None],
    group: ProcessGroup = SINGLE_PROCESS,
) -> Samples:
    """What the teacher writes behind the prompt of each of the rows; the loss is on that.

    The same seed gives the same texts, and no global generator is moved. ``after_batch`` is told how many rows are done, and may
    raise, to end it. Every rank writes all of them, in as much time as one, and takes what the first one wrote.
    """
    drawn = method.sampling_temperature if method.decoding == "sampling" else None
    decoding = Decoding(method.max_new_tokens, temperature=drawn, num_beams=method.num_beams)
    longest = teacher.row_tokens - method.max_new_tokens
    pieces: list[TokenRows] = []
    devices = [samples.device] if samples.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, len(samples), _ROWS_AT_ONCE):
            indices = torch.arange(start, min(start + _ROWS_AT_ONCE, len(samples)))
            ids, mask = _batch(samples, indices)
            prompts = prompts_of(ids, mask, teacher.framing, prompt_tokens=method.prompt_tokens, longest=longest)
            pieces.append(write(teacher.network.model, *prompts, teacher.framing, decoding))
            after_batch(start + len(indices))
    width = max(rows.ids.shape[1] for rows in pieces)
    ids = torch.cat([_widened(rows.ids, width, teacher.framing.pad) for rows in pieces])
    mask = torch.cat([_widened(rows.mask, width, False) for rows in pieces])
    ids, mask = group.broadcast_tensor(ids), group.broadcast_tensor(mask)
    return Samples(ids.to(samples.home), mask.to(samples.home), None, samples.device)


def _widened(rows: Tensor, width: int, filled: int | bool) -> Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=filled)


def _batch(samples: Samples, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, L), without what is behind the last token that counts in any of the rows."""
    batch = samples.batch(indices)
    ids, mask = batch.inputs, batch.labels
    counted = mask.any(dim=0).nonzero()
    width = int(counted[-1]) + 1 if len(counted) else 1
    return ids[:, :width], mask[:, :width]


def _text_loss(
    network: LanguageNetwork, ids: Tensor, mask: Tensor, precision: Precision, *, weight: float, group: ProcessGroup
) -> Tensor:
    with group.rank_local_rng(), precision.forward_pass():
        hidden = network.hidden(ids)
    states, labels = predictions(hidden, ids, mask)
    return group.mean(token_mean(states, network.head, labels, label_weight=weight), count=len(labels))


def _distillation_loss(
    method: Any,
    student: LanguageNetwork,
    teacher: LanguageNetwork,
    ids: Tensor,
    mask: Tensor,
    precision: Precision,
    *,
    label_weight: float,
    group: ProcessGroup,
) -> Tensor:
    """Student and teacher on the same tokens."""
    with group.rank_local_rng(), precision.forward_pass():
        hidden = student.hidden(ids)
    states, labels = predictions(hidden, ids, mask)
    answers, _ = _teacher_states(teacher, ids, mask, precision)
    ours, theirs = _same_vocabulary(student.head, teacher.head)
    teacher_states = TeacherStates(answers, theirs, token_loss(method), method.weight)
    return group.mean(
        token_mean(states, ours, labels, label_weight=label_weight, teacher_states=teacher_states), count=len(labels)
    )


def _teacher_states(teacher: LanguageNetwork, ids: Tensor, mask: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), precision.forward_pass():
        hidden = teacher.hidden(ids)
    return predictions(hidden, ids, mask)


def _same_vocabulary(*heads: OutputHead) -> tuple[OutputHead, ...]:
    """Networks of one tokenizer may have rows beyond its tokens, filled up to a round number: none of them is a token."""
    least = min(len(head.weight) for head in heads)
    return tuple(
        head if len(head.weight) == least else OutputHead(head.weight[:least], None if head.bias is None else head.bias[:least])
        for head in heads
    )
