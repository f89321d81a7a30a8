"""Rows of a causal language model in memory-mapped files, made of texts on disk some at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from worker.data.disk.mapped_rows import RowsWriter
from worker.data.disk.stored import StoredInputs
from worker.data.prepared import Losses, Prepared
from worker.data.split import Split
from worker.data.text.language import Framing, TokenRows, count_packed, framed, refuse_short
from worker.data.text.reading import rows_from
from worker.data.text.tokenization import token_ids


def mapped_rows(split: Split, make: Callable[[Split], TokenRows], framing: Framing) -> Prepared:
    """Maps the rows that ``make`` makes of a split, one of each text. Raises UnusableData."""
    losses = Losses()
    with _ids_writer(split.inputs, framing) as ids_writer, _mask_writer(split.inputs) as mask_writer:
        for start, piece in _pieces(split):
            with rows_from(start):
                rows = make(piece)
            # Causal attention never reaches what stands behind a row's last token that counts.
            columns = torch.arange(1, rows.mask.shape[1] + 1)
            lengths = (rows.mask * columns).amax(dim=1)
            ids_writer.add(rows.ids, lengths)
            mask_writer.add(rows.mask, lengths)
            losses = _added(losses, rows.losses, start)
        return Prepared(ids_writer.finish(), losses, mask_writer.finish())


def mapped_packed(split: Split, tokenizer: Any, framing: Framing, *, length: int) -> Prepared:
    """Maps texts one after another, as :func:`worker.data.text.language.packed` makes rows of them. Raises UnusableData."""
    refuse_short(length, framing)
    num_tokens = 0
    with _ids_writer(split.inputs, framing) as writer:
        for start, piece in _pieces(split):
            with rows_from(start):
                stream = framed(token_ids(tokenizer, piece.inputs), framing)
            writer.add_stream(stream)
            num_tokens += len(stream)
        count = count_packed(num_tokens, length=length)
        ids = writer.finish_stream(length)
    ones = np.broadcast_to(np.ones(1, dtype=np.uint8), ids.values.shape)
    mask = replace(ids, values=ones, padding=0, dtype=torch.bool)
    return Prepared(ids, Losses(tokens=(num_tokens - count * length, num_tokens)), mask)


def _pieces(split: Split) -> Iterator[tuple[int, Split]]:
    texts, answers = split.inputs, split.answers
    for start, piece in texts.numbered_pieces():
        stop = start + len(piece)
        theirs = answers[start:stop].read() if isinstance(answers, StoredInputs) else answers and answers[start:stop]
        yield start, replace(split, inputs=piece, labels=split.labels[start:stop], answers=theirs, transfer=None)


def _ids_writer(texts: StoredInputs, framing: Framing) -> RowsWriter:
    return RowsWriter(texts.reading.scratch, stored=np.int32, padding=framing.pad, dtype=torch.int64)


def _mask_writer(texts: StoredInputs) -> RowsWriter:
    return RowsWriter(texts.reading.scratch, stored=np.uint8, padding=0, dtype=torch.bool)


def _added(losses: Losses, others: Losses, start: int) -> Losses:
    def both(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        return one[0] + other[0], one[1] if one[0] or not other[0] else start + other[1]

    return Losses(both(losses.texts, others.texts), both(losses.prompts, others.prompts))
