"""Which samples a check reads of a split."""

import numpy as np
import pytest
import torch

from service.formats import RowPlaces
from worker.data import Data, Split
from worker.data.epoch import TransferRows
from worker.data.text.reading import count_characters
from worker.preflight.sampling import STEP_SAMPLES, first_texts, sample_data
from worker.targets import Targets

OWN = [f"own {index}" for index in range(4)]


def split(transferred: int) -> Split:
    """Texts of about 5 characters: four of a file, and so many transfer rows of another."""
    return Split(
        OWN + [f"new {index}" for index in range(transferred)],
        torch.cat([torch.zeros(4), torch.full((transferred,), -1.0)]).to(torch.int64),
        transfer=TransferRows(transferred, 0.5),
        part="train",
        places=(
            RowPlaces("train", np.array([7, 8, 9, 10])),
            RowPlaces("train", np.arange(transferred), source="file:more"),
        ),
    )


@pytest.mark.parametrize(("transferred", "kept"), [(100, 3), (2, 2), (1, 1), (0, 0)])
def test_own_and_transfer_rows_are_shortened_apart(transferred: int, kept: int) -> None:
    some = first_texts(split(transferred), 12)
    assert some.own.inputs == OWN[:3]
    assert some.transferred.inputs == [f"new {index}" for index in range(kept)]
    assert (len(some.own.labels), some.transferred.labels.tolist()) == (3, [-1] * kept)
    assert some.place(2) == "train split, row 9"
    if kept:
        assert some.place(3) == "train split, row 0 of file:more"


def test_a_short_split_is_left_whole() -> None:
    whole = split(3)
    assert first_texts(whole, 1000) is whole


def test_lists_of_words_are_texts_of_their_characters() -> None:
    words = [["a"], ["a", "long", "one"], ["of", "two"], ["abcdefgh"]]
    split = Split(words, torch.zeros(4, dtype=torch.int64))
    assert count_characters(split) == 1 + 8 + 5 + 8
    sampled = sample_data(Data("text-classification", {"train": split}, Targets(())), row_tokens=8)
    assert sampled.holds_all_texts, "so few words are all read by what is fitted"
    assert sampled.step_data.splits["train"].inputs == [words[1], words[3]], "the longest of them"
    assert len(sampled.step_data.splits["train"]) == STEP_SAMPLES
