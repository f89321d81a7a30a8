"""The criteria of causal language models. N rows, B batch, L tokens of a row, M tokens that count.

The teacher computes its outputs in each step: a distribution over the vocabulary for every token would not fit into memory.
Losses are computed from hidden states, a few tokens' logits at a time. The teacher generates its texts once, before the first
step, and the same ones again after an interruption; the student's are drawn from torch's global generator. Each rank runs the
networks on its rows of a batch; the loss is the mean over all ranks' tokens.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.spec.language_fit import LEAST_PROMPT
from service.spec.methods import OnPolicy, SequenceLevel
from worker.data.samples import Samples
from worker.data.text.language import (
    Framing,
    TokenRows,
    are_open,
    ids_and_positions,
    paired,
    predictions,
    prompt_lengths,
    prompts_of,
)
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.mapped_language import mapped_continued
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import JobFault
from worker.evaluation.precision import Precision
from worker.methods.output_head import OutputHead, TeacherStates, token_mean
from worker.methods.sequence import token_loss
from worker.models.generation import Decoding, write
from worker.models.language_network import LanguageNetwork
from worker.models.loading import dtype_of
from worker.training.criterion import Criterion, StepContext
from worker.training.micro_batch import Pieces, shares

_GENERATION_BATCH = 32
_SHOWN_PROMPT, _SHOWN_TOKENS = 16, 32
"""Tokens of a text that a report shows as a prompt, and behind it."""
"""Rows for which the teacher generates texts at a time; the same texts are drawn again only in the same batches."""


class TokenBatch(NamedTuple):
    """Some rows of tokens (b, L)."""

    ids: Tensor
    mask: Tensor
    """The loss mask."""
    positions: Tensor | None = None
    """Where several texts share a row."""


@dataclass(frozen=True)
class Rows:
    """A rank's shard of some rows of tokens, as each network reads them."""

    texts: TokenBatch
    teachers: TokenBatch | None = None
    """The same texts by the teacher's own tokenizer, or what the teacher generated; None if all networks read ``texts``."""
    is_generated: bool = False
    """Whether the student generated them."""


@dataclass(frozen=True)
class LanguageTeacher:
    """The teacher of a causal language model, in ``eval()``."""

    network: LanguageNetwork
    framing: Framing
    """The framing of its tokenizer."""
    row_tokens: int
    """The maximum number of tokens of a row."""
    samples: Samples | None = None
    """The training rows by its own tokenizer; None if it shares the student's."""


@dataclass(frozen=True)
class Term:
    """A part of a loss: the mean over the tokens that count of a rank's shard, and their number."""

    loss: Tensor
    count: int


@dataclass(frozen=True)
class LanguageCriterion(Criterion):
    """A loss that is a sum of means over tokens."""

    student: LanguageNetwork
    samples: Samples

    def __call__(self, indices: Tensor, step: StepContext) -> Tensor:
        """A sum of means over the tokens of all ranks."""
        (rows,) = self.rows([indices], step)
        with step.group.together():
            terms = self.terms(rows, step)
        return torch.stack([step.group.mean(term.loss, count=term.count) for term in terms]).sum()

    def pieces(self, parts: Sequence[Tensor], step: StepContext) -> Pieces:
        """Each part's means count by its tokens."""
        with step.group.together():
            rows = self.rows(parts, step)
        counts = []
        for part, each in zip(parts, rows, strict=True):
            step.group.shard(part)  # so that the group knows whether this rank has any of it
            counts.append([step.group.total(count) for count in self.counts(each)])
        by_term = list(zip(*map(shares, zip(*counts, strict=True)), strict=True))

        def piece(part: Tensor, rows: Rows, weights: Sequence[float]) -> Tensor:
            step.group.shard(part)
            with step.group.together():
                terms = self.terms(rows, step)
            means = [step.group.mean(term.loss, count=term.count) for term in terms]
            return torch.stack([mean * weight for mean, weight in zip(means, weights, strict=True)]).sum()

        return map(partial(partial, piece), parts, rows, by_term)

    def rows(self, parts: Sequence[Tensor], step: StepContext) -> list[Rows]:
        """This rank's rows of the parts (B,) of a batch; draws what random numbers choose them."""
        return [Rows(_batch(self.samples, step.group.shard(part))) for part in parts]

    @abstractmethod
    def terms(self, rows: Rows, step: StepContext) -> list[Term]:
        """Runs the networks."""

    def counts(self, rows: Rows) -> list[int]:
        """The numbers of tokens that count in each of the :meth:`terms`."""
        return [_count(rows.texts)]


@dataclass(frozen=True)
class NextTokenCriterion(LanguageCriterion):
    """The cross-entropy with the texts' own tokens: the criterion of a network without a teacher."""

    def terms(self, rows: Rows, step: StepContext) -> list[Term]:
        return [_text_loss(self.student, rows.texts, step, weight=1.0)]


@dataclass(frozen=True)
class DistributionCriterion(LanguageCriterion):
    """``forward-kl``, ``reverse-kl``, ``jsd`` and ``uld``: the teacher's distribution of each next token of the texts.

    With two tokenizers it is compared for the tokens that are aligned with a token of the other's row.
    """

    method: Any
    teacher: LanguageTeacher

    def rows(self, parts: Sequence[Tensor], step: StepContext) -> list[Rows]:
        shards = [step.group.shard(part) for part in parts]
        teachers = self.teacher.samples
        return [Rows(_batch(self.samples, own), None if teachers is None else _batch(teachers, own)) for own in shards]

    def terms(self, rows: Rows, step: StepContext) -> list[Term]:
        weight = self.method.label_weight
        if rows.teachers is None:
            networks = self.student, self.teacher.network
            return [_distillation_loss(self.method, *networks, rows.texts, step, label_weight=weight)]
        (ids, mask, _), (teacher_ids, teacher_mask, _) = rows.texts, rows.teachers
        student_mask, teacher_mask = paired(mask, teacher_mask)
        with step.group.rank_local_rng(), step.precision.forward_pass():
            hidden = self.student.hidden(ids)
        states, labels = predictions(hidden, ids, student_mask)
        aligned = TokenBatch(teacher_ids, teacher_mask)
        teacher_hidden, _ = _teacher_states(self.teacher.network, aligned, step.precision)
        teacher_states = TeacherStates(teacher_hidden, self.teacher.network.head, token_loss(self.method), self.method.weight)
        loss = token_mean(states, self.student.head, labels, label_weight=0.0, teacher_states=teacher_states)
        terms = [Term(loss, len(labels))]
        if weight:
            states, labels = predictions(hidden, ids, mask)
            terms.append(Term(token_mean(states, self.student.head, labels, label_weight=weight), len(labels)))
        return terms

    def counts(self, rows: Rows) -> list[int]:
        if rows.teachers is None:
            return [_count(rows.texts)]
        aligned, _ = paired(rows.texts.mask, rows.teachers.mask)
        return [int(aligned.sum()), *([_count(rows.texts)] if self.method.label_weight else [])]


@dataclass(frozen=True)
class SequenceLevelCriterion(LanguageCriterion):
    """``sequence``: the cross-entropy with the texts that the teacher generated, one for each row."""

    method: SequenceLevel
    generated: Samples

    def rows(self, parts: Sequence[Tensor], step: StepContext) -> list[Rows]:
        shards = [step.group.shard(part) for part in parts]
        return [Rows(_batch(self.samples, own), _batch(self.generated, own)) for own in shards]

    def terms(self, rows: Rows, step: StepContext) -> list[Term]:
        """Weighted means over the generated tokens and over the texts' own tokens."""
        assert rows.teachers is not None
        terms = [_text_loss(self.student, rows.teachers, step, weight=self.method.weight)]
        if self.method.label_weight:
            terms.append(_text_loss(self.student, rows.texts, step, weight=self.method.label_weight))
        return terms

    def counts(self, rows: Rows) -> list[int]:
        assert rows.teachers is not None
        return [_count(rows.teachers), *([_count(rows.texts)] if self.method.label_weight else [])]


@dataclass(frozen=True)
class OnPolicyCriterion(LanguageCriterion):
    """``on-policy``: the teacher's distributions, in a fraction of the batches on texts that the student generates."""

    method: OnPolicy
    teacher: LanguageTeacher

    def rows(self, parts: Sequence[Tensor], step: StepContext) -> list[Rows]:
        """The texts' own rows, or what the student generates after their prompts."""
        is_generated = bool(torch.rand(()) < self.method.student_share)
        rows = super().rows(parts, step)
        if not is_generated:
            return rows
        with step.group.rank_local_rng():
            return [Rows(self._generate(each.texts), is_generated=True) for each in rows]

    def terms(self, rows: Rows, step: StepContext) -> list[Term]:
        label_weight = 0.0 if rows.is_generated else self.method.label_weight
        networks = self.student, self.teacher.network
        return [_distillation_loss(self.method, *networks, rows.texts, step, label_weight=label_weight)]

    def _generate(self, texts: TokenBatch) -> TokenBatch:
        method = self.method
        prompts = prompts_of(
            texts.ids,
            texts.mask,
            self.teacher.framing,
            prompt_tokens=method.prompt_tokens,
            longest=self.teacher.row_tokens - method.max_new_tokens,
        )
        decoding = Decoding(method.max_new_tokens, temperature=method.sampling_temperature)
        written = write(self.student.model, *prompts, self.teacher.framing, decoding)
        return TokenBatch(written.ids, written.mask)


def language_criterion(
    method: Any,
    student: LanguageNetwork,
    samples: Samples,
    teacher: LanguageTeacher,
    *,
    generated: Samples | None = None,
) -> Criterion:
    """The criterion of a student of this method; ``generated`` are the texts of :func:`generate_texts`."""
    match method:
        case SequenceLevel() if generated is not None:
            return SequenceLevelCriterion(student, samples, method, generated)
        case OnPolicy():
            return OnPolicyCriterion(student, samples, method, teacher)
        case _:
            return DistributionCriterion(student, samples, method, teacher)


def check_generation_fits(method: Any, row_tokens: int) -> None:
    """Raises JobFault if a row is too short for a prompt and the text to be generated after it."""
    if isinstance(method, SequenceLevel | OnPolicy) and method.max_new_tokens > row_tokens - LEAST_PROMPT:
        raise JobFault(
            "invalid_spec",
            f"The networks read rows of {row_tokens} tokens, too few for a prompt and {method.max_new_tokens} new tokens.",
            hint=f"Set max_new_tokens to {row_tokens - LEAST_PROMPT} or less, or raise dataset.row_tokens.",
            details={"pointer": "/method/max_new_tokens"},
        )


def generate_texts(
    method: SequenceLevel,
    teacher: LanguageTeacher,
    samples: Samples,
    *,
    seed: int,
    after_batch: Callable[[int], None],
    group: ProcessGroup = SINGLE_PROCESS,
) -> Samples:
    """Generates the teacher's texts after the prompt of each row; the mask covers the generated tokens.

    The same seed gives the same texts, and the global generators are left as they were. ``after_batch`` gets the number of rows
    done, and may raise to stop. Every rank generates all texts, which takes no longer than one, and uses rank 0's. They stay on
    disk where the samples do.
    """
    with closing(_written(method, teacher, samples, seed=seed, after_batch=after_batch)) as pieces:
        if samples.mask is not None:
            shared = (
                TokenRows(group.broadcast_tensor(rows.ids).cpu(), group.broadcast_tensor(rows.mask).cpu()) for rows in pieces
            )
            mapped, its_mask = mapped_continued(shared, teacher.framing, samples.mask.folder)
            return Samples(mapped, torch.empty(len(samples), 0), None, samples.device, mask=its_mask)
        kept = list(pieces)
    width = max(rows.ids.shape[1] for rows in kept)
    ids = torch.cat([_pad_columns(rows.ids, width, teacher.framing.pad) for rows in kept])
    mask = torch.cat([_pad_columns(rows.mask, width, False) for rows in kept])
    ids, mask = group.broadcast_tensor(ids), group.broadcast_tensor(mask)
    return Samples(ids.to(samples.home), mask.to(samples.home), None, samples.device)


def continuations(network: LanguageNetwork, samples: Samples, reads: LanguagePreprocessing) -> list[tuple[str, str, str]]:
    """Of each row of some samples its prompt, what follows it there, and what the network writes, without special tokens.

    The most probable token is written each time, so that nothing is drawn; each part has some tokens at most.
    """
    ids, mask, _ = _batch(samples, torch.arange(len(samples)))
    new_tokens = max(1, min(_SHOWN_TOKENS, reads.max_length // 2))
    longest = max(1, reads.max_length - new_tokens)
    # At least half of the shortest text is left for what follows.
    prompt_tokens = max(1, min(_SHOWN_PROMPT, int(mask.sum(dim=1).min()) // 2))
    lengths = prompt_lengths(ids, mask, reads.framing, prompt_tokens=prompt_tokens).tolist()
    prompts, real = prompts_of(ids, mask, reads.framing, prompt_tokens=prompt_tokens, longest=longest)
    rows = write(network.model, prompts, real, reads.framing, Decoding(new_tokens, temperature=None))

    def text(tokens: Tensor) -> str:
        return str(reads.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)).strip()

    return [
        (
            text(prompts[row][real[row]]),
            text(ids[row, length:][mask[row, length:]][:new_tokens]),
            text(rows.ids[row][rows.mask[row]]),
        )
        for row, length in enumerate(lengths)
    ]


def _written(
    method: SequenceLevel, teacher: LanguageTeacher, samples: Samples, *, seed: int, after_batch: Callable[[int], None]
) -> Generator[TokenRows, None, None]:
    """The rows that the teacher writes, some at a time, on the device; closing it puts the global generators back."""
    temperature = method.sampling_temperature if method.decoding == "sampling" else None
    decoding = Decoding(method.max_new_tokens, temperature=temperature, num_beams=method.num_beams)
    longest = teacher.row_tokens - method.max_new_tokens
    devices = [samples.device] if samples.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, len(samples), _GENERATION_BATCH):
            indices = torch.arange(start, min(start + _GENERATION_BATCH, len(samples)))
            ids, mask, _ = _batch(samples, indices)
            prompts = prompts_of(ids, mask, teacher.framing, prompt_tokens=method.prompt_tokens, longest=longest)
            yield write(teacher.network.model, *prompts, teacher.framing, decoding)
            after_batch(start + len(indices))


def _pad_columns(rows: Tensor, width: int, value: int | bool) -> Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=value)


def _batch(samples: Samples, indices: Tensor) -> TokenBatch:
    """Rows (B, L), cut after the last token that counts in any of them; whole, if a chat among them awaits an answer."""
    batch = samples.batch(indices)
    (ids, positions), mask = ids_and_positions(batch.inputs), batch.labels
    counted = mask.any(dim=0).nonzero()
    width = int(counted[-1]) + 1 if len(counted) else 1
    if are_open(mask).any():
        width = mask.shape[1]
    return TokenBatch(ids[:, :width], mask[:, :width], None if positions is None else positions[:, :width])


def _count(rows: TokenBatch) -> int:
    """The number of tokens that count, as :func:`predictions` selects them."""
    return int(rows.mask[:, 1:].sum())


def _text_loss(network: LanguageNetwork, rows: TokenBatch, step: StepContext, *, weight: float) -> Term:
    with step.group.rank_local_rng(), step.precision.forward_pass():
        hidden = network.hidden(rows.ids, rows.positions)
    states, labels = predictions(hidden, rows.ids, rows.mask)
    return Term(token_mean(states, network.head, labels, label_weight=weight), len(labels))


def _distillation_loss(
    method: Any,
    student: LanguageNetwork,
    teacher: LanguageNetwork,
    rows: TokenBatch,
    step: StepContext,
    *,
    label_weight: float,
) -> Term:
    """The loss of student and teacher on the same tokens."""
    with step.group.rank_local_rng(), step.precision.forward_pass():
        hidden = student.hidden(rows.ids, rows.positions)
    states, labels = predictions(hidden, rows.ids, rows.mask)
    teacher_hidden, _ = _teacher_states(teacher, rows, step.precision)
    student_head, teacher_head = _same_vocabulary(student.head, teacher.head)
    teacher_states = TeacherStates(teacher_hidden, teacher_head, token_loss(method), method.weight)
    loss = token_mean(states, student_head, labels, label_weight=label_weight, teacher_states=teacher_states)
    return Term(loss, len(labels))


def _teacher_states(teacher: LanguageNetwork, rows: TokenBatch, precision: Precision) -> tuple[Tensor, Tensor]:
    # A teacher in another number format computes in that: the training's own beside it would not go with its weights.
    own = precision if dtype_of(teacher) is torch.float32 else Precision(precision.device, None)
    with torch.no_grad(), own.forward_pass():
        hidden = teacher.hidden(rows.ids, rows.positions)
    return predictions(hidden, rows.ids, rows.mask)


def _same_vocabulary(*heads: OutputHead) -> tuple[OutputHead, ...]:
    """Cuts heads of one tokenizer to the same vocabulary: some are padded to a round number with rows that are no token."""
    least = min(len(head.weight) for head in heads)
    return tuple(
        head if len(head.weight) == least else OutputHead(head.weight[:least], None if head.bias is None else head.bias[:least])
        for head in heads
    )
