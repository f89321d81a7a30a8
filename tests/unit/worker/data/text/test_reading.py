"""Splits as a network reads them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from service.formats import RowPlaces
from service.spec.inputs import TokenizerSpec
from worker.data import Split, UnusableData
from worker.data.prepared import Losses, Prepared, PreparedSamples
from worker.data.tensors import only_tensor
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.texts import TextPreprocessing, train_text_preprocessing

TEXTS = ["red green", "blue", "green blue red"]


@pytest.fixture(scope="module")
def reads() -> TextPreprocessing:
    return train_text_preprocessing(TEXTS, TokenizerSpec(train="wordpiece", vocab_size=60, max_length=8))


def split(texts: list[str], *places: RowPlaces) -> Split:
    return Split(texts, torch.arange(len(texts)), part="test", places=places)


def test_texts_are_tokenised_once_for_all_networks_of_a_tokenizer(reads: TextPreprocessing) -> None:
    samples = split(TEXTS)
    first, labels, losses, _ = reads.read(samples)
    assert losses == Losses()
    assert torch.equal(labels, torch.arange(3))
    assert TextPreprocessing(reads.tokenizer, reads.max_length).read(samples)[0] is first


def test_another_length_task_or_list_of_texts_is_tokenised_anew(reads: TextPreprocessing) -> None:
    samples = split(TEXTS)
    first = reads.read(samples).inputs
    assert only_tensor(TextPreprocessing(reads.tokenizer, 3).read(samples)[0]).shape == (3, 3)
    ids, mask, *_ = LanguagePreprocessing(reads.tokenizer, reads.max_length).read(samples)
    assert only_tensor(ids).shape == mask.shape
    assert mask.dtype == torch.bool
    assert only_tensor(reads.read(Split(TEXTS[:2], torch.arange(2), read=samples.read))[0]).shape == (2, 4)
    assert reads.read(samples)[0] is first


def test_texts_that_are_cut_are_counted_with_their_prompt_and_not_where_there_is_no_limit(reads: TextPreprocessing) -> None:
    def losses(**settings: Any) -> Losses:
        return replace(reads, **settings).read(split(["blue", *TEXTS])).losses

    assert losses(max_length=5) == Losses()
    assert losses(max_length=4) == Losses(texts=(1, 3))
    assert losses(max_length=4, prompt="red ") == Losses(texts=(2, 1))
    assert losses(max_length=4, has_limit=False) == Losses()


def test_what_is_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = PreparedSamples()
    monkeypatch.setattr("worker.data.prepared.MOST_BYTES", 100)
    kept.keep((TEXTS,), 1, Prepared(torch.zeros(10, dtype=torch.int64), Losses()))
    kept.keep((TEXTS,), 2, Prepared(torch.zeros(10, dtype=torch.int64), Losses()))
    assert kept.find((TEXTS,), 1) is not None
    assert kept.find((TEXTS,), 2) is None


@pytest.mark.parametrize(
    ("index", "place"),
    [
        (0, "test split, row 4 (line 6)"),
        (1, "test split (of the file's split 'train'), row 9"),
        (2, "test split (of the file's split 'train'), row 7"),
    ],
)
def test_a_sample_is_named_by_its_place_in_the_file(reads: TextPreprocessing, index: int, place: str) -> None:
    here = RowPlaces("test", np.array([4]), np.array([6]))
    other = RowPlaces("train", np.array([0, 9, 7]))[np.array([1, 2])]
    texts = list(TEXTS)
    texts[index] = "\u200b"
    with pytest.raises(UnusableData) as caught:
        reads.read(split(texts, here, other))
    assert str(caught.value) == f"{place}: the text '\\u200b' holds no token: fill it, or remove the row"


def test_texts_that_are_cut_are_counted_with_what_stands_before_each(reads: TextPreprocessing) -> None:
    texts = ["red"] * 3000 + ["red " * 20] * 5 + ["red " * 6, "red " * 5]
    assert reads.read(split(texts)).losses.texts == (5, 3000)
    prompted = TextPreprocessing(reads.tokenizer, reads.max_length, prompt="blue ")
    assert prompted.read(split(texts)).losses.texts == (6, 3000)
    endless = TextPreprocessing(reads.tokenizer, reads.max_length, has_limit=False)
    assert endless.read(split(texts)).losses.texts == (0, 0)
