"""Pairs of texts as networks read them: the library's own tokens and types, what is cut of which text, what is dropped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tokenizers import processors
from transformers import AutoTokenizer

from service.formats import RowPlaces, TextPair
from service.spec.augment import TokenDropout
from service.spec.inputs import TokenizerSpec
from tests.unit.worker.data.text.test_tokenization import some_texts
from worker.data import Split, UnusableData
from worker.data.augment.operation import Stored, Vocabulary
from worker.data.augment.text import token_dropout
from worker.data.text.texts import TextPreprocessing, train_text_preprocessing
from worker.data.text.tokenization import NO_TOKEN, TokenizerKind, longest, split_types, with_types

KINDS = get_args(TokenizerKind)
PAIRS = [TextPair(first, second) for first, second in zip(some_texts(40), some_texts(40, seed=1), strict=True)]


def trained(kind: TokenizerKind, *, max_length: int = 64, pairs: Sequence[TextPair] = PAIRS) -> TextPreprocessing:
    return train_text_preprocessing(pairs, TokenizerSpec(train=kind, vocab_size=320, max_length=max_length))


def expected(tokenizer: Any, pairs: Sequence[TextPair], *, max_length: int) -> Any:
    """What the library makes of the pairs."""
    return tokenizer(
        [pair.first for pair in pairs],
        [pair.second for pair in pairs],
        truncation="longest_first",
        max_length=max_length,
        padding=True,
        return_tensors="pt",
    )


def assert_as_in_the_library(reads: TextPreprocessing, tokenizer: Any, pairs: Sequence[TextPair]) -> None:
    ids, types = split_types(reads(reads.prepare(pairs)))
    whole = expected(tokenizer, pairs, max_length=reads.max_length)
    assert torch.equal(ids != NO_TOKEN, whole["attention_mask"].bool())
    assert torch.equal(ids.where(ids != NO_TOKEN, tokenizer.pad_token_id), whole["input_ids"])
    if "token_type_ids" in whole:
        assert torch.equal(types, whole["token_type_ids"])
    else:
        assert not types.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [64, 9])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokens_and_types_of_a_pair_are_the_librarys_own_and_those_of_the_saved_folder(
    tmp_path: Path, kind: TokenizerKind, max_length: int, side: str
) -> None:
    reads = trained(kind, max_length=max_length)
    reads.tokenizer.truncation_side = side
    reads.save(tmp_path, input_shape=reads.input_shape(PAIRS), has_token_types=reads.input_shape(PAIRS).has_types)
    assert_as_in_the_library(reads, AutoTokenizer.from_pretrained(tmp_path, truncation_side=side), PAIRS)


def test_a_tokenizer_of_pairs_has_a_mark_between_the_texts_and_knows_the_words_of_both() -> None:
    wordpiece, bpe = trained("wordpiece"), trained("bpe")
    pair = PAIRS[0]
    row, types = split_types(wordpiece.prepare([pair])[0])
    marks = [index for index, token in enumerate(row) if token == wordpiece.tokenizer.sep_token_id]
    assert len(marks) == 2
    assert types.tolist() == [0] * (marks[0] + 1) + [1] * (len(row) - marks[0] - 1)
    assert wordpiece.tokenizer.unk_token_id not in wordpiece.prepare(PAIRS)
    row, types = split_types(bpe.prepare([pair])[0])
    assert bpe.tokenizer.decode(row) == f"{pair.first}<|endoftext|>{pair.second}"
    assert not types.any()
    assert (wordpiece.input_shape(PAIRS).has_types, bpe.input_shape(PAIRS).has_types) == (True, False)


def test_a_tokenizer_whose_template_is_robertas_sets_two_marks_and_gives_no_types() -> None:
    reads = trained("bpe")
    end = reads.tokenizer.eos_token
    reads.tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing((end, 0), (end, 0))
    row = reads.prepare([TextPair("a b", "c")])[0]
    assert reads.tokenizer.decode(row) == f"{end}a b{end}{end}c{end}"
    assert_as_in_the_library(reads, reads.tokenizer, PAIRS)


def test_a_single_text_of_the_same_tokenizer_has_ids_alone() -> None:
    reads = trained("wordpiece")
    texts = [pair.first for pair in PAIRS]
    single = reads.prepare(texts)
    assert single.max() < len(reads.tokenizer)
    assert not reads.input_shape(texts).has_types


def test_the_warning_says_which_of_the_two_texts_are_cut() -> None:
    reads = trained("wordpiece", max_length=12)
    long, short = " ".join(["abc"] * 20), "abc"
    pairs = [TextPair(short, short), TextPair(long, short), TextPair(short, long), TextPair(long, long), TextPair(short, long)]
    split = Split(pairs, torch.zeros(5, dtype=torch.int64), part="train", places=(RowPlaces("train", torch.arange(5).numpy()),))
    read = reads.read(split)
    assert (read.losses.texts, read.losses.second_texts) == ((2, 1), (3, 2))
    told = [warning.message for warning in reads.describe_losses(read.losses, split, readers="student")]
    assert [message.split(" are cut")[0] for message in told] == [
        "2 of 5 first texts of the train split",
        "3 of 5 second texts of the train split",
    ]
    assert longest(reads.tokenizer, pairs) == len(reads.tokenizer(long, long)["input_ids"])


def test_a_text_without_a_token_and_a_length_without_room_are_refused() -> None:
    reads = trained("wordpiece")
    split = Split([PAIRS[0], TextPair("abc", "\u200b")], torch.zeros(2, dtype=torch.int64), part="train")
    with pytest.raises(UnusableData, match="row 1: the text '\\\\u200b' holds no token"):
        reads.read(split)
    with pytest.raises(UnusableData, match="no place for two texts beside 3 special tokens"):
        TextPreprocessing(reads.tokenizer, 4).prepare(PAIRS)


@pytest.mark.parametrize("mode", ["mask", "delete"])
def test_dropped_tokens_of_a_pair_are_of_its_texts_and_leave_the_types_of_the_others(mode: Any) -> None:
    reads = trained("wordpiece")
    tokenizer = reads.tokenizer
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    stored = Stored(vocabulary=Vocabulary(NO_TOKEN, tokenizer.mask_token_id, special))
    tokens = reads.prepare(PAIRS)
    draws = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0))
    seen = token_dropout(TokenDropout(name="token-dropout", probability=0.5, mode=mode), tokens, lambda _: draws, stored)
    (ids, types), (before, types_before) = split_types(seen), split_types(tokens)
    for mark in special:
        assert torch.equal((ids == mark).sum(dim=1), (before == mark).sum(dim=1))
    if mode == "mask":
        assert torch.equal(types, types_before)
        assert bool(((ids == before) | (ids == tokenizer.mask_token_id)).all())
        assert bool((ids == tokenizer.mask_token_id).any())
    else:
        assert bool((seen != NO_TOKEN).sum() < (tokens != NO_TOKEN).sum())
        kept = [[each for each in row.tolist() if each != NO_TOKEN] for row in seen]
        whole = [row.tolist() for row in tokens]
        assert all(_is_subsequence(part, row) for part, row in zip(kept, whole, strict=True))


def test_ids_and_types_stand_in_one_number_and_come_apart_again() -> None:
    ids = torch.tensor([[0, 5, 2**24 - 1, NO_TOKEN]])
    types = torch.tensor([[0, 1, 3, 1]])
    found, apart = split_types(with_types(ids, types))
    assert torch.equal(found, ids)
    assert apart.tolist() == [[0, 1, 3, 0]]


def _is_subsequence(part: Sequence[int], whole: Sequence[int]) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)
