"""Rows of tokens that a causal language model trains on. N rows, B batch, L tokens of a row, P of a prompt, D hidden width.

A row has token ids and a loss mask. Invariants: rows begin in the first column, and the padding after a row's end is not in its
mask; only :func:`predictions` shifts by one, from a token to the hidden state that predicts it. (Causal attention never reaches
the padding after a row's own tokens, so there is no attention mask.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.data.errors import UnusableData, UnusableRow
from worker.data.prepared import NO_LOSSES, Losses

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
    """N texts, or pieces of texts."""

    ids: Tensor
    """(N, L), int64."""
    mask: Tensor
    """(N, L), bool: the loss mask. Its first column has no effect, since nothing predicts a row's first token."""
    losses: Losses = NO_LOSSES
    """What of the texts is in no row."""

    def __len__(self) -> int:
        return len(self.ids)


def packed(documents: Sequence[Ids], framing: Framing, *, length: int) -> TokenRows:
    """Concatenates the documents, each with its end token, and cuts them into rows of ``length``: no padding, loss on all tokens.

    An incomplete last row is dropped.

    Raises:
        UnusableRow: a document holds no token.
        UnusableData: all documents together do not fill one row.
    """
    _refuse_short(length, framing)
    stream: list[int] = []
    for number, document in enumerate(documents):
        _refuse_empty(document, "text", number)
        stream += [*framing.start, *document, framing.end]
    count = len(stream) // length
    if count == 0:
        raise UnusableData(
            f"all texts together are {len(stream)} tokens, less than one row of {length}: shorten the rows, or add texts"
        )
    ids = torch.tensor(stream[: count * length], dtype=torch.int64).view(count, length)
    dropped = len(stream) - count * length
    return TokenRows(ids, torch.ones_like(ids, dtype=torch.bool), Losses(tokens=(dropped, len(stream))))


def padded(documents: Sequence[Ids], framing: Framing, *, length: int) -> TokenRows:
    """Makes a row of each document and its end token, then padding; the loss is on all of its tokens.

    A document longer than ``length`` is cut and loses its end token.

    Raises:
        UnusableRow: a document holds no token.
    """
    _refuse_short(length, framing)
    rows = []
    for number, document in enumerate(documents):
        _refuse_empty(document, "text", number)
        rows.append([*framing.start, *document, framing.end])
    cut = [number for number, row in enumerate(rows) if len(row) > length]
    return _rows([row[:length] for row in rows], [0] * len(rows), framing, Losses(texts=_counted(cut)))


def answered(prompts: Sequence[Ids], answers: Sequence[Ids], framing: Framing, *, length: int) -> TokenRows:
    """Makes a row of each prompt, its answer and the end token; the loss is on the answer and the end token.

    A row longer than ``length`` first loses the beginning of its prompt, down to half of the row, then the end of its answer and
    with it the end token.

    Raises:
        UnusableRow: a prompt or an answer holds no token.
    """
    _refuse_short(length, framing)
    rows, starts = [], []
    cut_prompts, cut_answers = [], []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        _refuse_empty(prompt, "prompt", number)
        _refuse_empty(answer, "answer", number)
        after = [*answer, framing.end]
        prompt_length = min(len(prompt), max(length - len(after), length // 2, len(framing.start) + 1) - len(framing.start))
        rows.append([*framing.start, *prompt[len(prompt) - prompt_length :], *after][:length])
        starts.append(len(framing.start) + prompt_length)
        cut_prompts += [number] if prompt_length < len(prompt) else []
        cut_answers += [number] if starts[-1] + len(after) > length else []
    return _rows(rows, starts, framing, Losses(texts=_counted(cut_answers), prompts=_counted(cut_prompts)))


def predictions(hidden: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Selects the hidden states of (B, L, D) that predict a token of the mask (B, L), and these tokens: (M, D) and (M,)."""
    counted = mask[:, 1:]
    return hidden[:, :-1][counted], ids[:, 1:][counted]


def paired(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts two tokenizers' loss masks (B, ·) of the same texts to equally many tokens per row: the n-th pairs with the n-th."""
    first, second = first.clone(), second.clone()
    first[:, 0] = second[:, 0] = False  # nothing predicts a first token
    shared = torch.minimum(first.sum(dim=1), second.sum(dim=1)).unsqueeze(1)
    return first & (first.cumsum(dim=1) <= shared), second & (second.cumsum(dim=1) <= shared)


def prompts_of(ids: Tensor, mask: Tensor, framing: Framing, *, prompt_tokens: int, longest: int) -> tuple[Tensor, Tensor]:
    """Extracts the prompts of rows (B, L), padded at their beginning, and the mask of their real tokens: (B, P) each.

    A row's prompt is all before its first token with a loss; for a row whose loss begins at once, its first ``prompt_tokens``, or
    all but the last token of a shorter row. A prompt longer than ``longest`` loses its beginning, except ``framing.start``.
    """
    first = mask.int().argmax(dim=1)
    without = (mask.sum(dim=1) - 1).clamp(min=1, max=prompt_tokens)
    lengths = torch.where(first > 0, first, without)
    width = min(longest, int(lengths.max()))
    columns = torch.arange(width, device=ids.device)
    places = columns + (lengths - width).unsqueeze(1)
    places = torch.where((places > columns) & (columns < len(framing.start)), columns, places)
    real = places >= 0
    return ids.gather(1, places.clamp(min=0)).masked_fill(~real, framing.pad), real


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


def _rows(rows: Sequence[Ids], starts: Sequence[int], framing: Framing, losses: Losses) -> TokenRows:
    """Pads rows at the end; the loss is on each row from its start on."""
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=framing.pad)
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    places = torch.arange(ids.shape[1])
    return TokenRows(ids, (places >= torch.tensor(starts).unsqueeze(1)) & (places < lengths), losses)


def _refuse_short(length: int, framing: Framing) -> None:
    least = len(framing.start) + 2
    if length < least:
        raise UnusableData(
            f"rows of {length} tokens are too short to have a token that another one stands before: take {least} or more"
        )


def _refuse_empty(ids: Ids, what: str, number: int) -> None:
    if not ids:
        raise UnusableRow(number, f"the {what} holds no token: fill it, or remove the row")
