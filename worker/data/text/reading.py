"""A split's texts, each tokenised once; what cannot be read is named by its place in the file. N samples."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.spec.warning_message import WarningMessage
from worker.data.errors import UnusableData, UnusableRow
from worker.data.prepared import Losses, Prepared
from worker.data.preprocessing import take
from worker.data.raw_inputs import num_characters
from worker.data.split import Split, is_images


def prepare_once(split: Split, preprocessing: Any, make: Callable[[Split], Prepared]) -> Prepared:
    """Calls ``make`` unless the same ``tokenizer``, in a preprocessing of equal settings, has read the split before.

    Raises:
        UnusableData: what ``make`` raises, with the place of the sample.
    """
    sources = (split.inputs, split.answers, preprocessing.tokenizer)
    others = {each.name: getattr(preprocessing, each.name) for each in fields(preprocessing) if each.name != "tokenizer"}
    settings = (type(preprocessing), others, split.is_packed, split.is_isolated, split.overlong)
    made = split.read.find(sources, settings)
    if made is None:
        try:
            made = make(split)
        except UnusableRow as error:
            raise UnusableData(f"{split.place(error.index)}: {error.problem}") from error
        except UnusableData as error:
            raise UnusableData(f"{split.name}: {error}") from error
        split.read.keep(sources, settings, made)
    return made


@contextmanager
def rows_from(start: int) -> Iterator[None]:
    """Counts the rows of a piece, which begins at the split's row ``start``, as the split's."""
    try:
        yield
    except UnusableRow as error:
        raise UnusableRow(start + error.index, error.problem) from error


def describe_unread_texts(
    losses: Losses, split: Split, *, readers: str, max_length: int, cut_at: str, remedy: str, texts: str = "texts"
) -> Iterator[WarningMessage]:
    """Tells what of a split's texts a network of rows of ``max_length`` tokens does not read.

    Args:
        cut_at: where texts lose their tokens, "at their end" say.
        remedy: what to change for longer rows.
        texts: what ``losses.texts`` are of.
    """
    limit = f"{max_length:,} tokens"
    for code, what, (count, first), how in (
        ("texts_cut", "answers" if split.answers else texts, losses.texts, cut_at),
        ("texts_cut", "second texts", losses.second_texts, cut_at),
        ("prompts_cut", "prompts", losses.prompts, "at their beginning"),
        ("turns_cut", "chats", losses.turns, "by their oldest turns"),
    ):
        if count:
            message = (
                f"{count:,} of {len(split):,} {what} of the {split.name} are cut {how}, as the {readers} reads {limit}; the "
                f"first: {split.place(first)}. To read more, {remedy}, as far as the network allows"
            )
            yield WarningMessage(code=code, message=message)
    count, first = losses.markup
    if count:
        message = (
            f"in {count:,} of {len(split):,} chats of the {split.name} a message holds the name of a special token, which the "
            f"{readers} reads as that token: an end token in an answer teaches to stop there; the first: {split.place(first)}. "
            "Take such names out where they are not meant"
        )
        yield WarningMessage(code="markup_in_chats", message=message)
    dropped, total = losses.tokens
    if dropped:
        message = (
            f"the last {dropped:,} of {total:,} tokens of the {split.name}, as the {readers} reads it, fill no row of {limit} "
            "and are dropped"
        )
        yield WarningMessage(code="tokens_dropped", message=message)


def count_characters(split: Split) -> int:
    """Characters of a split's texts and answers; 0 of what is none."""
    return int(_lengths(split).sum())


def every_nth_text(split: Split, characters: int) -> Split:
    """Some of a split's texts, evenly spaced, of about so many characters, one text a row."""
    lengths = _lengths(split)
    step = max(1, math.ceil(lengths.sum() / characters))
    rows = np.arange(0, len(split), step)
    return replace(
        split,
        inputs=take(split.inputs, rows),
        labels=split.labels[torch.from_numpy(rows)],
        answers=None if split.answers is None else take(split.answers, rows),
        places=tuple(split.place_of(int(row)) for row in rows),
        is_packed=False,
        transfer=None,
    )


def _lengths(split: Split) -> NDArray[np.int64]:
    if is_images(split.inputs):
        return np.zeros(len(split), dtype=np.int64)
    answers = split.answers or [""] * len(split)
    lengths = [num_characters(each) + len(answer) for each, answer in zip(split.inputs, answers, strict=True)]
    return np.array(lengths, dtype=np.int64)
