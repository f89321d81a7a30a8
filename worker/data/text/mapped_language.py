"""Rows of a causal language model in memory-mapped files, made of texts on disk some at a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.data.disk.mapped_rows import MappedRows, NamedRows, RowsWriter
from worker.data.disk.stored import StoredInputs
from worker.data.prepared import Losses, Prepared
from worker.data.split import Split
from worker.data.text.language import (
    Framing,
    PaddedRows,
    TokenRows,
    count_packed,
    framed,
    isolated,
    refuse_short,
    shared_rows,
)
from worker.data.text.reading import rows_from
from worker.data.text.tokenization import token_ids


def mapped_rows(split: Split, make: Callable[[Split], TokenRows], framing: Framing) -> Prepared:
    """Maps the rows that ``make`` makes of a split, one of each text or chat. Raises UnusableData."""
    losses, folder = Losses(), split.inputs.reading.scratch
    with _ids_writer(folder, framing) as ids_writer, _mask_writer(folder) as mask_writer:
        for rows in _made(split, make):
            ids_writer.add(rows.ids, rows.lengths)
            mask_writer.add(rows.mask, _last_counted(rows.mask))
            losses = rows.losses
        return Prepared(ids_writer.finish(), losses, mask_writer.finish())


def mapped_continued(pieces: Iterable[TokenRows], framing: Framing, folder: Path) -> tuple[MappedRows, MappedRows]:
    """Maps rows of :func:`worker.data.text.language.continued`, which end with their last token that counts, and their mask."""
    with _ids_writer(folder, framing) as ids_writer, _mask_writer(folder) as mask_writer:
        for rows in pieces:
            lengths = _last_counted(rows.mask)
            ids_writer.add(rows.ids, lengths)
            mask_writer.add(rows.mask, lengths)
        return ids_writer.finish(), mask_writer.finish()


def mapped_isolated(split: Split, make: Callable[[Split], TokenRows], framing: Framing, *, length: int) -> Prepared:
    """Maps rows of several texts or chats, which are put together once the length of each is known. Raises UnusableData."""
    losses, folder = Losses(), split.inputs.reading.scratch
    with _ids_writer(folder, framing) as ids_writer, _mask_writer(folder) as mask_writer:
        for rows in _made(replace(split, is_isolated=False, is_packed=False), make):
            ids_writer.add(rows.ids, rows.lengths)
            mask_writer.add(rows.mask, rows.lengths)
            losses = rows.losses
        ids, mask = ids_writer.finish(), mask_writer.finish()
    sharing = shared_rows(ids.lengths, length)
    with (
        _ids_writer(folder, framing) as ids_writer,
        RowsWriter(folder, stored=np.int32, padding=0, dtype=torch.int64) as positions_writer,
        _mask_writer(folder) as mask_writer,
    ):
        for row in sharing:
            texts, counted = ([rows.row(at) for at in row.tolist()] for rows in (ids, mask))
            rows = isolated(texts, counted, [np.arange(len(row))], framing)
            assert rows.positions is not None
            ids_writer.add(rows.ids, rows.lengths)
            positions_writer.add(rows.positions, rows.lengths)
            mask_writer.add(rows.mask, _last_counted(rows.mask))
        named = NamedRows({"ids": ids_writer.finish(), "positions": positions_writer.finish()})
        return Prepared(named, losses, mask_writer.finish())


def mapped_packed(split: Split, tokenizer: Any, framing: Framing, *, length: int) -> Prepared:
    """Maps texts one after another, as :func:`worker.data.text.language.packed` makes rows of them. Raises UnusableData."""
    refuse_short(length, framing)
    num_tokens = 0
    with _ids_writer(split.inputs.reading.scratch, framing) as writer:
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


def _made(split: Split, make: Callable[[Split], TokenRows]) -> Iterator[PaddedRows]:
    """The rows of a split, some at a time, with the losses so far."""
    losses = Losses()
    for start, piece in _pieces(split):
        with rows_from(start):
            rows = make(piece)
        if not isinstance(rows, PaddedRows):
            raise TypeError("packed texts are no rows of their own")
        losses = _added(losses, rows.losses, start)
        yield replace(rows, losses=losses)


def _last_counted(mask: Tensor) -> Tensor:
    """The tokens (N,) of rows (N, L) up to the last one that counts."""
    return (mask * torch.arange(1, mask.shape[1] + 1)).amax(dim=1)


def _ids_writer(folder: Path, framing: Framing) -> RowsWriter:
    return RowsWriter(folder, stored=np.int32, padding=framing.pad, dtype=torch.int64)


def _mask_writer(folder: Path) -> RowsWriter:
    return RowsWriter(folder, stored=np.uint8, padding=0, dtype=torch.bool)


def _added(losses: Losses, others: Losses, start: int) -> Losses:
    """What is lost of texts, and of others after them, which begin at sample ``start``."""

    def both(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        return one[0] + other[0], one[1] if one[0] or not other[0] else start + other[1]

    return Losses(**{each.name: both(getattr(losses, each.name), getattr(others, each.name)) for each in fields(Losses)})
