"""Rows of tokens that a causal language model trains on. N rows, B batch, L tokens of a row, P of a prompt, D hidden width.

A row has token ids and a loss mask. Invariants: rows begin in the first column, and the padding after a row's end is not in its
mask; only :func:`predictions` shifts by one, from a token to the hidden state that predicts it. (Causal attention never reaches
the padding after a row's own tokens, so there is no attention mask.)
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.data.errors import UnusableData, UnusableRow
from worker.data.prepared import NO_LOSSES, Losses
from worker.data.tensors import Inputs
from worker.data.text.chat_template import ReadChat

Ids = Sequence[int]


@dataclass(frozen=True)
class Framing:
    """Special tokens around a text."""

    start: tuple[int, ...]
    """Tokens before a text; empty for many tokenizers."""
    end: int
    """Token after a complete text."""
    pad: int


@dataclass(frozen=True)
class TokenRows:
    """N texts, pieces of texts, or several texts in a row."""

    ids: Tensor
    """(N, L), int64."""
    mask: Tensor
    """(N, L), bool: the loss mask. Nothing predicts a row's first token, and its first column is of no loss: where the second is
    false, it says of a chat whether an answer is to follow its last token."""
    losses: Losses = NO_LOSSES
    """What of the texts is in no row."""
    positions: Tensor | None = None
    """(N, L), int64, of rows of several texts that do not attend to each other: each token's place in its own text, from 0."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PaddedRows(TokenRows):
    """Rows of whole texts, some of which are shorter than others."""

    lengths: Tensor = field(kw_only=True)
    """(N,), int64: the tokens of each, of which the last ones may be of no loss."""


def packed(documents: Sequence[Ids], framing: Framing, *, length: int) -> TokenRows:
    """Concatenates the documents, each with its end token, and cuts them into rows of ``length``: no padding, loss on all tokens.

    An incomplete last row is dropped.

    Raises:
        UnusableRow: a document holds no token.
        UnusableData: all documents together do not fill one row.
    """
    refuse_short(length, framing)
    stream = framed(documents, framing)
    count = count_packed(len(stream), length=length)
    ids = torch.tensor(stream[: count * length], dtype=torch.int64).view(count, length)
    dropped = len(stream) - count * length
    return TokenRows(ids, torch.ones_like(ids, dtype=torch.bool), Losses(tokens=(dropped, len(stream))))


def framed(documents: Sequence[Ids], framing: Framing) -> list[int]:
    """The documents one after another, each with its end token. Raises UnusableRow."""
    stream: list[int] = []
    for number, document in enumerate(documents):
        _refuse_empty(document, "text", number)
        stream += [*framing.start, *document, framing.end]
    return stream


def count_packed(num_tokens: int, *, length: int) -> int:
    """How many whole rows so many tokens fill. Raises UnusableData if it is none."""
    if num_tokens < length:
        raise UnusableData(
            f"all texts together are {num_tokens} tokens, less than one row of {length}: shorten the rows, or add texts"
        )
    return num_tokens // length


@dataclass(frozen=True)
class RowStyle:
    """How texts that are rows of their own are laid out."""

    length: int
    """Most tokens of a row."""
    refuses_longer: bool = False
    """Whether a longer text is refused rather than cut."""
    isolates: bool = False
    """Whether several whole texts share a row, in which none attends to another."""


def padded(documents: Sequence[Ids], framing: Framing, style: RowStyle) -> PaddedRows:
    """Makes a row of each document and its end token, then padding; the loss is on all of its tokens.

    A document longer than a row is cut and loses its end token.

    Raises:
        UnusableRow: a document holds no token, or is too long.
    """
    length = style.length
    refuse_short(length, framing)
    rows = []
    for number, document in enumerate(documents):
        _refuse_empty(document, "text", number)
        rows.append([*framing.start, *document, framing.end])
    cut = [number for number, row in enumerate(rows) if len(row) > length]
    _refuse_longer(rows, style)
    rows = [row[:length] for row in rows]
    return _rows(rows, _behind([0] * len(rows), rows), framing, style, Losses(texts=_counted(cut)))


def answered(prompts: Sequence[Ids], answers: Sequence[Ids], framing: Framing, style: RowStyle) -> PaddedRows:
    """Makes a row of each prompt, its answer and the end token; the loss is on the answer and the end token.

    What is longer than a row first loses the beginning of its prompt, down to half of the row, then the end of its answer and
    with it the end token.

    Raises:
        UnusableRow: a prompt or an answer holds no token, or both are too long.
    """
    length = style.length
    refuse_short(length, framing)
    rows, starts = [], []
    cut_prompts, cut_answers = [], []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        _refuse_empty(prompt, "prompt", number)
        _refuse_empty(answer, "answer", number)
        after = [*answer, framing.end]
        _refuse_longer([[*framing.start, *prompt, *after]], style, first=number)
        prompt_length = min(len(prompt), max(length - len(after), length // 2, len(framing.start) + 1) - len(framing.start))
        rows.append([*framing.start, *prompt[len(prompt) - prompt_length :], *after][:length])
        starts.append(len(framing.start) + prompt_length)
        cut_prompts += [number] if prompt_length < len(prompt) else []
        cut_answers += [number] if starts[-1] + len(after) > length else []
    losses = Losses(texts=_counted(cut_answers), prompts=_counted(cut_prompts))
    return _rows(rows, _behind(starts, rows), framing, style, losses)


def conversed(chats: Iterable[ReadChat], framing: Framing, style: RowStyle, *, may_be_prompts: bool) -> PaddedRows:
    """Makes a row of each chat, with the loss on what counts of it.

    A chat that is still longer than a row, though only its last exchange is left, loses the end of its answer. Of one without an
    answer, which is a prompt, no token has a loss.

    Raises:
        UnusableRow: a chat is too long, or without an answer where it ``may_be_prompts`` not.
    """
    refuse_short(style.length, framing)
    rows: list[Ids] = []
    counted: list[Tensor] = []
    cut, shortened, marked = [], [], []
    for number, chat in enumerate(chats):
        _refuse_longer([chat.ids], style, first=number)
        is_prompt, is_whole = not any(chat.counted), len(chat.ids) <= style.length
        if is_prompt and not may_be_prompts:
            raise UnusableRow(number, "the chat has no turn of the assistant, so that there is nothing to measure: write one")
        if not is_whole and (is_prompt or not any(chat.counted[1 : style.length])):
            raise UnusableRow(
                number,
                f"what stands before the chat's last answer is {len(chat.ids) - sum(chat.counted):,} tokens, and a row has "
                f"{style.length:,}: raise dataset.row_tokens, or shorten the chat",
            )
        if chat.is_open and any(chat.counted[1:2]):
            raise UnusableRow(number, "its first answer begins behind a single token: let the template write who is speaking")
        cut += [] if is_whole else [number]
        shortened += [number] if chat.lost_turns else []
        marked += [number] if chat.says_markup else []
        rows.append(chat.ids[: style.length])
        counted.append(torch.tensor([chat.is_open and is_whole, *chat.counted[1 : style.length]], dtype=torch.bool))
    return _rows(rows, counted, framing, style, Losses(texts=_counted(cut), turns=_counted(shortened), markup=_counted(marked)))


def language_inputs(ids: Tensor, positions: Tensor | None) -> Inputs:
    """What a language network reads of rows: their ids, and where texts share a row, the tokens' positions."""
    return ids if positions is None else {"ids": ids, "positions": positions}


def ids_and_positions(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """The parts of :func:`language_inputs`."""
    return (inputs, None) if isinstance(inputs, Tensor) else (inputs["ids"], inputs["positions"])


def predictions(hidden: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Selects the hidden states of (B, L, D) that predict a token of the mask (B, L), and these tokens: (M, D) and (M,)."""
    counted = mask[:, 1:]
    return hidden[:, :-1][counted], ids[:, 1:][counted]


def paired(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts two tokenizers' loss masks (B, ·) of the same texts to equally many tokens in each run of tokens that count, which is
    a turn of a chat or a whole text: the n-th pairs with the n-th.
    """
    first, second = first.clone(), second.clone()
    first[:, 0] = second[:, 0] = False  # nothing predicts a first token
    (runs, of_first), (others, of_second) = _runs(first), _runs(second)
    width = 1 + int(max(runs.max(), others.max()))
    lengths = torch.minimum(_run_lengths(first, runs, width), _run_lengths(second, others, width))
    return first & (of_first < lengths.gather(1, runs)), second & (of_second < lengths.gather(1, others))


def num_turns(mask: Tensor) -> Tensor:
    """Counts the runs of tokens that count in each row (N, L): (N,)."""
    counted = mask[:, 1:]
    starts = counted.clone()
    starts[:, 1:] &= ~counted[:, :-1]
    return starts.sum(dim=1)


def are_open(mask: Tensor) -> Tensor:
    """Tells which rows (N, L) of chats await an answer at their end: (N,)."""
    return mask[:, 0] & ~mask[:, 1:2].any(dim=1)


def _runs(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The number of the run, from 1, that each place of (B, L) is in or behind, and its place in that run, from 0."""
    starts = mask.clone()
    starts[:, 1:] &= ~mask[:, :-1]
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return starts.long().cumsum(dim=1), places - places.where(starts, 0).cummax(dim=1).values


def _run_lengths(mask: Tensor, runs: Tensor, width: int) -> Tensor:
    return torch.zeros(len(mask), width, dtype=torch.int64, device=mask.device).scatter_add(1, runs, mask.long())


def prompts_of(ids: Tensor, mask: Tensor, framing: Framing, *, prompt_tokens: int, longest: int) -> tuple[Tensor, Tensor]:
    """Extracts the prompts of rows (B, L), padded at their beginning, and the mask of their real tokens: (B, P) each.

    A row's prompt is all before its last run of tokens with a loss; for a row whose loss begins at once, its first
    ``prompt_tokens``, or all but the last token of a shorter row; for a chat that awaits an answer, all of it. A prompt
    longer than ``longest`` loses its beginning, except ``framing.start``.
    """
    lengths = prompt_lengths(ids, mask, framing, prompt_tokens=prompt_tokens)
    width = min(longest, int(lengths.max()))
    columns = torch.arange(width, device=ids.device)
    places = columns + (lengths - width).unsqueeze(1)
    places = torch.where((places > columns) & (columns < len(framing.start)), columns, places)
    real = places >= 0
    return ids.gather(1, places.clamp(min=0)).masked_fill(~real, framing.pad), real


def prompt_lengths(ids: Tensor, mask: Tensor, framing: Framing, *, prompt_tokens: int) -> Tensor:
    """Computes how many tokens the prompt of each row is that :func:`prompts_of` extracts: (B,)."""
    places = torch.arange(ids.shape[1], device=ids.device)
    starts = mask.clone()
    starts[:, 1:] &= ~mask[:, :-1]
    last = torch.where(starts, places, 0).max(dim=1).values
    without = (mask.sum(dim=1) - 1).clamp(min=1, max=prompt_tokens)
    # The words that ask for an answer end neither with an end token nor with padding.
    asked = torch.where((ids != framing.pad) & (ids != framing.end), places + 1, 0).max(dim=1).values
    return torch.where(are_open(mask), asked, torch.where(last > 0, last, without))


def continued(prompts: Tensor, real: Tensor, written: Tensor, framing: Framing) -> TokenRows:
    """Appends generated tokens (B, T), up to the first end token, to prompts of :func:`prompts_of`; they alone have a loss."""
    is_end = written == framing.end
    before_end = is_end.cumsum(dim=1) - is_end.int() == 0
    lengths = real.sum(dim=1) + before_end.sum(dim=1)
    skipped = prompts.shape[1] - real.sum(dim=1, keepdim=True)
    places = torch.arange(int(lengths.max()), device=prompts.device)
    inside = places < lengths.unsqueeze(1)
    whole = torch.cat([prompts, written], dim=1)
    sources = (places + skipped).clamp(max=whole.shape[1] - 1)
    ids = whole.gather(1, sources).masked_fill(~inside, framing.pad)
    return TokenRows(ids, inside & (places >= real.sum(dim=1, keepdim=True)))


def _counted(samples: Sequence[int]) -> tuple[int, int]:
    """How many samples, and the first of them."""
    return len(samples), samples[0] if samples else 0


def _behind(starts: Sequence[int], rows: Sequence[Ids]) -> list[Tensor]:
    """The loss on each row from its start on."""
    return [torch.arange(len(row)) >= start for start, row in zip(starts, rows, strict=True)]


def _rows(rows: Sequence[Ids], counted: Sequence[Tensor], framing: Framing, style: RowStyle, losses: Losses) -> PaddedRows:
    """Pads rows at the end, or puts several into one as they fit."""
    ids = [torch.tensor(row, dtype=torch.int64) for row in rows]
    if style.isolates:
        sharing = shared_rows(np.array([len(row) for row in rows]), style.length)
        return replace(isolated(ids, counted, sharing, framing), losses=losses)
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return PaddedRows(_padded(ids, framing.pad), _padded(counted, False), losses, lengths=lengths)


def shared_rows(lengths: NDArray[np.integer], most: int) -> list[NDArray[np.int64]]:
    """Which texts, of so many tokens, share a row of ``most``: each goes, in their order, where it leaves the least room."""
    row_of, count = np.empty(len(lengths), dtype=np.int64), 0
    with_room: list[list[int]] = [[] for _ in range(most + 1)]
    """The rows, a heap, that have so many tokens left."""
    left_somewhere: list[int] = []
    """The numbers of tokens that any row has left, sorted: many rows have few of them."""
    for number, length in enumerate(lengths.tolist()):
        at = bisect_left(left_somewhere, length)
        if at < len(left_somewhere):
            left = left_somewhere[at]
            row = heappop(with_room[left])
            if not with_room[left]:
                del left_somewhere[at]
        else:
            left, row, count = most, count, count + 1
        row_of[number] = row
        if not with_room[left - length]:
            insort(left_somewhere, left - length)
        heappush(with_room[left - length], row)
    return np.split(np.argsort(row_of, kind="stable"), np.cumsum(np.bincount(row_of, minlength=1))[:-1])


def isolated(
    ids: Sequence[Tensor], counted: Sequence[Tensor], sharing: Sequence[NDArray[np.int64]], framing: Framing
) -> PaddedRows:
    """Puts texts (l,), of which some tokens are ``counted`` (l,), into the rows that they share by :func:`shared_rows`."""
    rows = [[ids[at] for at in row] for row in sharing]
    masks = [[counted[at].clone() for at in row] for row in sharing]
    for mask in chain.from_iterable(masks):
        mask[0] = False  # nothing predicts the first token of a text, though another text stands before it
    places = [[torch.arange(len(text)) for text in row] for row in rows]
    return PaddedRows(
        _padded(list(map(torch.cat, rows)), framing.pad),
        _padded(list(map(torch.cat, masks)), False),
        positions=_padded(list(map(torch.cat, places)), 0),
        lengths=torch.tensor([sum(map(len, row)) for row in rows], dtype=torch.int64),
    )


def _padded(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def refuse_short(length: int, framing: Framing) -> None:
    least = len(framing.start) + 2
    if length < least:
        raise UnusableData(
            f"rows of {length} tokens are too short to have a token that another one stands before: take {least} or more"
        )


def _refuse_empty(ids: Ids, what: str, number: int) -> None:
    if not ids:
        raise UnusableRow(number, f"the {what} holds no token: fill it, or remove the row")


def _refuse_longer(rows: Sequence[Ids], style: RowStyle, *, first: int = 0) -> None:
    for number, row in enumerate(rows, start=first):
        if style.refuses_longer and len(row) > style.length:
            raise UnusableRow(
                number,
                f"it is {len(row):,} tokens, and a row has {style.length:,}: raise dataset.row_tokens, shorten it, or set "
                "dataset.overlong to cut",
            )
