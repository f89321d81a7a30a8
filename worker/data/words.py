"""Words of a text as a network reads them: ids of all their pieces, and where each word begins. N rows, L pieces, K words.

A word's label and its outputs stand at its first piece. Invariant: no word is lost. A row that does not fit into the network is
refused, as the words that are cut off would be neither learnt nor scored.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from worker.data.errors import UnusableData, UnusableRow
from worker.data.tokenization import NO_TOKEN

NO_WORD = -1
"""Fills a row of places after its last word."""
_BATCH_ROWS = 1024


def encode_words(tokenizer: Any, rows: Sequence[Sequence[str]], *, max_length: int | None) -> dict[str, Tensor]:
    """Encodes rows of words as the tokenizer does pre-tokenised text: ``ids`` (N, L), filled up with ``NO_TOKEN``, and
    ``first_pieces`` (N, K), the place of each word's first piece among them, filled up with ``NO_WORD``.

    Raises:
        UnusableRow: a word has no piece, the tokenizer has none for a character of it, or a row has more than ``max_length``.
        UnusableData: ``max_length`` leaves no room for a word.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise UnusableData(f"max_length {max_length} has no place for words beside {special} special tokens: raise it")
    ids: list[Tensor] = []
    places: list[Tensor] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        some = rows[start : start + _BATCH_ROWS]
        for offset, (pieces, words) in enumerate(_pieces(tokenizer, some, first=start)):
            row = start + offset
            if max_length is not None and len(pieces) > max_length:
                raise UnusableRow(
                    row,
                    f"its {len(some[offset])} words are {len(pieces)} pieces, and the network reads {max_length}: raise the "
                    "tokenizer's max_length (and the network's positions), or divide the row",
                )
            ids.append(torch.tensor(pieces, dtype=torch.int64))
            places.append(_first_pieces(words, some[offset], row=row))
    if not ids:
        return {"ids": torch.empty(0, 0, dtype=torch.int64), "first_pieces": torch.empty(0, 0, dtype=torch.int64)}
    return {
        "ids": pad_sequence(ids, batch_first=True, padding_value=NO_TOKEN),
        "first_pieces": pad_sequence(places, batch_first=True, padding_value=NO_WORD),
    }


def most_pieces(tokenizer: Any, rows: Sequence[Sequence[str]]) -> int:
    """Pieces of the longest row, special tokens included; 0 without rows. Raises UnusableRow."""
    lengths = [0]
    for start in range(0, len(rows), _BATCH_ROWS):
        lengths += [len(pieces) for pieces, _ in _pieces(tokenizer, rows[start : start + _BATCH_ROWS], first=start)]
    return max(lengths)


def at_first_pieces(outputs: Tensor, first_pieces: Tensor) -> Tensor:
    """Selects each word's outputs (B, K, W) from those of all pieces (B, L, W); those of ``NO_WORD`` are of no meaning."""
    places = first_pieces.clamp(min=0).unsqueeze(-1).expand(-1, -1, outputs.shape[-1])
    return outputs.gather(1, places)


def _pieces(tokenizer: Any, rows: Sequence[Sequence[str]], *, first: int) -> list[tuple[list[int], list[int | None]]]:
    """The ids of some rows, of which the first is row ``first``, and of which word each is a piece."""
    try:
        encoded = tokenizer(
            [list(words) for words in rows],
            is_split_into_words=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    except Exception as error:  # the library raises plain Exception for a character that a tokenizer has no token for
        if len(rows) > 1:
            return [_pieces(tokenizer, [words], first=first + index)[0] for index, words in enumerate(rows)]
        problem = f"the tokenizer cannot read the words {' '.join(rows[0])[:40]!r} ({str(error)[:200]})"
        raise UnusableRow(first, f"{problem}: save it so that it can, with an unk_token, or remove the row") from error
    return [(ids, encoded.word_ids(index)) for index, ids in enumerate(encoded["input_ids"])]


def _first_pieces(words: Sequence[int | None], row_words: Sequence[str], *, row: int) -> Tensor:
    places: dict[int, int] = {}
    for place, number in enumerate(words):
        if number is not None:
            places.setdefault(number, place)
    for index, word in enumerate(row_words):
        if index not in places:
            raise UnusableRow(row, f"word {index + 1}, {word[:40]!r}, holds no token: take it out, with its tag")
    return torch.tensor([places[index] for index in range(len(row_words))], dtype=torch.int64)
