"""Rows of words as networks read them: every word once, at its first piece, or the row is refused."""

from pathlib import Path

import pytest
import torch

from service.spec.inputs import TokenizerSpec
from worker.data.errors import UnusableData
from worker.data.split import Split
from worker.data.text.tokenization import NO_TOKEN, load_tokenizer
from worker.data.text.words import (
    NO_WORD,
    WordPreprocessing,
    append_unlabelled_words,
    at_first_pieces,
    train_word_preprocessing,
)

ROWS = [["Ada", "lives", "in", "Oslo", "."], ["Rio", "de", "Janeiro"], ["unbelievably", "far"]] * 4


def preprocessing(kind: str = "wordpiece", *, size: int = 60, max_length: int = 24) -> WordPreprocessing:
    spec = TokenizerSpec.model_validate({"train": kind, "vocab_size": size, "max_length": max_length})
    return train_word_preprocessing(ROWS, spec)


def split(rows: list[list[str]]) -> Split:
    return Split(rows, torch.zeros(len(rows), 1, dtype=torch.int64), part="train")


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 60), ("bpe", 280)])
def test_each_word_is_found_at_its_first_piece(kind: str, size: int) -> None:
    reads = preprocessing(kind, size=size)
    made = reads.prepare(ROWS)
    for row, ids, places in zip(ROWS, made["ids"], made["first_pieces"], strict=True):
        starts = places[places != NO_WORD].tolist()
        assert len(starts) == len(row)
        ends = [*starts[1:], int((ids != NO_TOKEN).sum()) - (kind == "wordpiece")]
        read = [reads.tokenizer.decode(ids[start:end].tolist()).strip() for start, end in zip(starts, ends, strict=True)]
        assert read == (row if kind == "bpe" else [word.lower() for word in row])


def test_a_word_alone_has_the_pieces_that_it_has_behind_others() -> None:
    tokenizer = preprocessing("bpe", size=280).tokenizer
    alone = tokenizer(["Oslo"], is_split_into_words=True)["input_ids"]
    assert tokenizer(["Ada", "Oslo"], is_split_into_words=True)["input_ids"][-len(alone) :] == alone


def test_a_saved_tokenizer_gives_the_same_pieces(tmp_path: Path) -> None:
    reads = preprocessing("bpe", size=280)
    reads.save(tmp_path, input_shape=reads.input_shape(ROWS))
    again = WordPreprocessing(load_tokenizer(tmp_path), reads.max_length)
    assert torch.equal(again.prepare(ROWS)["ids"], reads.prepare(ROWS)["ids"])


def test_a_batch_is_as_long_as_its_longest_row() -> None:
    reads = preprocessing()
    made = reads.prepare(ROWS[:3])
    batch = reads({name: tensor[1:2] for name, tensor in made.items()})
    assert batch["ids"].shape[1] < made["ids"].shape[1]
    assert torch.equal(batch["first_pieces"], made["first_pieces"][1:2])


def test_a_row_that_the_network_cannot_hold_is_refused_with_its_place() -> None:
    with pytest.raises(UnusableData, match=r"^train split, row 1: its 30 words are \d+ pieces, and the network reads 24: raise"):
        preprocessing().read(split([["far"], ["Oslo"] * 30]))


def test_a_network_without_a_limit_reads_any_row() -> None:
    reads = preprocessing()
    free = WordPreprocessing(reads.tokenizer, reads.max_length, has_limit=False)
    assert (free.prepare([["Oslo"] * 30])["first_pieces"] != NO_WORD).sum() == 30


@pytest.mark.parametrize(("word", "shown"), [("\u200b", r"'\\u200b'"), ("\u00ad", r"'\\xad'")])
def test_a_word_without_a_piece_is_refused_with_its_place(word: str, shown: str) -> None:
    with pytest.raises(UnusableData, match=rf"^train split, row 0: word 2, {shown}, holds no token"):
        preprocessing().read(split([["Ada", word]]))


def test_a_tokenizer_without_a_place_for_words_is_refused() -> None:
    with pytest.raises(UnusableData, match="max_length 2 has no place for words beside 2 special tokens"):
        WordPreprocessing(preprocessing().tokenizer, 2).read(split(ROWS))


def test_unlabelled_rows_widen_the_labels_and_are_filled_up() -> None:
    labels = torch.tensor([[0, 1], [1, NO_WORD]])
    assert append_unlabelled_words(labels, [["a", "b", "c"], ["d"]]).tolist() == [
        [0, 1, NO_WORD],
        [1, NO_WORD, NO_WORD],
        [-1, -1, -1],
        [-1, NO_WORD, NO_WORD],
    ]


def test_outputs_are_those_of_first_pieces() -> None:
    outputs = torch.arange(12.0).view(1, 6, 2)
    assert at_first_pieces(outputs, torch.tensor([[1, 4, NO_WORD]]))[0, :2].tolist() == [[2.0, 3.0], [8.0, 9.0]]
