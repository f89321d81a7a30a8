"""What token dropout does to texts."""

from typing import Literal

import pytest
import torch

from service.spec.augment import TokenDropout
from tests.unit.worker.data.augment.draws import chosen, drawn
from worker.data.augment import Stored, Vocabulary
from worker.data.augment.text import token_dropout

PAD, MASK, BEGIN, END = 0, 1, 2, 3
STORED = Stored(vocabulary=Vocabulary(pad=PAD, mask=MASK, special=(BEGIN, END)))
TEXTS = torch.tensor([[BEGIN, 10, 11, 12, END, PAD, PAD], [BEGIN, 20, 21, 22, 23, 24, END]])
DRAWS = chosen([0.0, 0.1, 0.9, 0.2, 0.0, 0.0, 0.0], [0.0, 0.9, 0.1, 0.9, 0.9, 0.1, 0.0])


def dropout(mode: Literal["mask", "delete"], probability: float = 0.15) -> TokenDropout:
    return TokenDropout(name="token-dropout", probability=probability, mode=mode)


def test_masked_tokens_are_hidden_in_their_places() -> None:
    assert token_dropout(dropout("mask"), TEXTS, DRAWS, STORED).tolist() == [
        [BEGIN, MASK, 11, 12, END, PAD, PAD],
        [BEGIN, 20, MASK, 22, 23, MASK, END],
    ]


def test_what_follows_a_deleted_token_moves_up_and_the_end_is_padded() -> None:
    assert token_dropout(dropout("delete"), TEXTS, DRAWS, STORED).tolist() == [
        [BEGIN, 11, 12, END, PAD, PAD, PAD],
        [BEGIN, 20, 22, 23, END, PAD, PAD],
    ]


def test_one_token_always_stays() -> None:
    few = chosen([0.0, 0.1, 0.3, 0.2, 0.0, 0.0, 0.0], [0.0] * 7)
    texts = torch.stack([TEXTS[0], torch.tensor([BEGIN, END, PAD, PAD, PAD, PAD, PAD])])
    assert token_dropout(dropout("delete", 0.9), texts, few, STORED).tolist() == [
        [BEGIN, 11, END, PAD, PAD, PAD, PAD],
        [BEGIN, END, PAD, PAD, PAD, PAD, PAD],
    ]


@pytest.mark.parametrize("mode", ["mask", "delete"])
def test_more_padding_changes_nothing(mode: Literal["mask", "delete"]) -> None:
    texts = torch.randint(4, 100, (40, 30), generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(texts, (0, 9), value=PAD)
    longer = token_dropout(dropout(mode), padded, drawn(40), STORED)
    assert torch.equal(longer[:, :30], token_dropout(dropout(mode), texts, drawn(40), STORED))
    assert (longer[:, 30:] == PAD).all()


def test_tokens_are_dropped_as_often_as_it_says() -> None:
    texts = torch.full((500, 40), 9)
    masked = token_dropout(dropout("mask", 0.3), texts, drawn(500), STORED)
    assert (masked == MASK).float().mean().item() == pytest.approx(0.3, abs=0.01)
