"""Rows of tokens: packed, padded, with answers; prompts of them and what is written behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.unit.worker.data.text.test_tokenization import plain_tokenizer, some_texts
from worker.data import UnusableData
from worker.data.errors import UnreadableTokenizer, UnusableRow
from worker.data.text.chat_template import ReadChat
from worker.data.text.language import (
    Framing,
    RowStyle,
    TokenRows,
    answered,
    continued,
    conversed,
    num_turns,
    packed,
    padded,
    paired,
    predictions,
    prompt_lengths,
    prompts_of,
)
from worker.data.text.tokenization import encode, framing, load_tokenizer, token_ids, train_tokenizer

PLAIN = Framing(start=(), end=1, pad=0)
STARTED = Framing(start=(2,), end=1, pad=0)


def rows_of(rows: TokenRows) -> list[list[int]]:
    return [list(row) for row in rows.ids.tolist()]


def learned(rows: TokenRows) -> list[list[int]]:
    """The tokens of each row that the loss is on."""
    return [ids[mask].tolist() for ids, mask in zip(rows.ids, rows.mask, strict=True)]


def test_packed_documents_follow_each_other_with_their_ends_and_without_padding() -> None:
    rows = packed([[5, 6, 7], [8], [9, 9]], STARTED, length=4)
    assert rows_of(rows) == [[2, 5, 6, 7], [1, 2, 8, 1], [2, 9, 9, 1]]
    assert bool(rows.mask.all())
    assert rows_of(packed([[5, 6, 7], [8]], PLAIN, length=4)) == [[5, 6, 7, 1]]


def test_padded_documents_have_a_row_each_and_lose_their_end_where_they_are_cut() -> None:
    rows = padded([[5, 6, 7, 8], [5]], STARTED, RowStyle(5))
    assert rows_of(rows) == [[2, 5, 6, 7, 8], [2, 5, 1, 0, 0]]
    assert rows.mask.tolist() == [[True] * 5, [True, True, True, False, False]]
    assert padded([[5], [6, 7]], PLAIN, RowStyle(100)).ids.shape == (2, 3)


@pytest.mark.parametrize(
    ("prompt", "answer", "row", "tokens"),
    [
        ([4, 5], [6, 7], [2, 4, 5, 6, 7, 1], [6, 7, 1]),
        ([3, 4, 5, 6], [7, 8], [2, 5, 6, 7, 8, 1], [7, 8, 1]),  # the prompt loses its beginning
        ([3, 4, 5, 6], [7, 8, 9, 7, 8, 9], [2, 5, 6, 7, 8, 9], [7, 8, 9]),  # down to half; then the answer its end
        ([4], [5, 6, 7, 8, 9], [2, 4, 5, 6, 7, 8], [5, 6, 7, 8]),
    ],
)
def test_the_loss_is_on_the_answer_and_its_end(prompt: list[int], answer: list[int], row: list[int], tokens: list[int]) -> None:
    rows = answered([prompt], [answer], STARTED, RowStyle(6))
    assert rows_of(rows) == [row]
    assert learned(rows) == [tokens]


def test_answers_of_several_lengths_are_padded_and_no_loss_is_on_the_padding() -> None:
    rows = answered([[4], [4, 5, 6]], [[7], [8, 9]], PLAIN, RowStyle(10))
    assert rows_of(rows) == [[4, 7, 1, 0, 0, 0], [4, 5, 6, 8, 9, 1]]
    assert learned(rows) == [[7, 1], [8, 9, 1]]


def test_a_hidden_state_goes_with_the_token_behind_it() -> None:
    rows = answered([[4], [4, 5, 6]], [[7], [8, 9]], PLAIN, RowStyle(10))
    hidden = torch.arange(12).view(2, 6, 1)
    states, tokens = predictions(hidden, rows.ids, rows.mask)
    assert states.flatten().tolist() == [0, 1, 8, 9, 10]
    assert tokens.tolist() == [7, 1, 8, 9, 1]
    states, tokens = predictions(hidden, rows.ids, torch.ones_like(rows.mask))
    assert states.flatten().tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_the_tokens_of_two_tokenizers_go_in_pairs_as_far_as_both_have_them() -> None:
    ours = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
    theirs = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).bool()
    first, second = paired(ours, theirs)
    assert first.int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0]]
    assert second.int().tolist() == [[0, 0, 1, 1], [0, 1, 1, 0]]


def test_two_tokenizers_tokens_are_paired_turn_by_turn() -> None:
    ours = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 1, 0], [0, 1, 0, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    theirs = torch.tensor([[0, 1, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 1, 1]], dtype=torch.bool)
    assert num_turns(ours).tolist() == num_turns(theirs).tolist() == [2, 2]
    first, second = paired(ours, theirs)
    assert first.int().tolist() == [[0, 0, 1, 0, 0, 0, 0, 1, 0], [0, 1, 0, 1, 1, 0, 0, 0, 0]]
    assert second.int().tolist() == [[0, 1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1, 1]]


CHATS = [
    ReadChat([2, 4, 5, 1], [False, False, True, True]),
    ReadChat([2, 4, 6, 1, 4, 7, 7, 1], [False, False, True, True, False, True, True, True], lost_turns=2),
    ReadChat([2, 4, 4], [False] * 3, is_open=True, says_markup=True),
]


def test_a_chat_is_a_row_with_its_own_loss_and_one_without_an_answer_is_a_prompt() -> None:
    rows = conversed(CHATS, PLAIN, RowStyle(7), may_be_prompts=True)
    assert rows_of(rows) == [[2, 4, 5, 1, 0, 0, 0], [2, 4, 6, 1, 4, 7, 7], [2, 4, 4, 0, 0, 0, 0]]
    assert rows.mask.int().tolist() == [[0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0]]
    assert (rows.losses.texts, rows.losses.turns, rows.losses.markup) == ((1, 1), (1, 1), (1, 2))
    ids, real = prompts_of(rows.ids, rows.mask, PLAIN, prompt_tokens=9, longest=9)
    prompts = [row[kept].tolist() for row, kept in zip(ids, real, strict=True)]
    assert prompts == [[2, 4], [2, 4, 6, 1, 4], [2, 4, 4]], "the last answer is the one that is written anew"


def test_a_prompt_ends_before_its_padding_though_it_pads_with_the_end_token() -> None:
    frame = Framing(start=(), end=1, pad=1)
    chats = [
        ReadChat([4, 1, 5, 6], [False] * 4, is_open=True),
        ReadChat([4, 4, 5, 1, 4, 5], [False, False, True, True, False, False], is_open=True),
        ReadChat([4, 5, 1, 4, 4, 1], [False, True, True, False, True, True]),
    ]
    rows = conversed(chats, frame, RowStyle(8), may_be_prompts=True)
    assert prompt_lengths(rows.ids, rows.mask, frame, prompt_tokens=9).tolist() == [4, 6, 4]


def test_chats_that_leave_nothing_to_learn_are_refused_with_their_row() -> None:
    with pytest.raises(UnusableRow, match="row 2: the chat has no turn of the assistant"):
        conversed(CHATS, PLAIN, RowStyle(9), may_be_prompts=False)
    with pytest.raises(UnusableRow, match=r"row 0: what stands before the chat's last answer is 8 tokens, and a row has 4"):
        conversed([ReadChat([4] * 8 + [1], [False] * 8 + [True])], PLAIN, RowStyle(4), may_be_prompts=False)
    with pytest.raises(UnusableRow, match=r"row 1: it is 8 tokens, and a row has 7: raise dataset.row_tokens"):
        conversed(CHATS, PLAIN, RowStyle(7, refuses_longer=True), may_be_prompts=True)
    with pytest.raises(UnusableRow, match="row 1: it is 4 tokens"):
        padded([[5], [4, 5, 6]], PLAIN, RowStyle(3, refuses_longer=True))
    with pytest.raises(UnusableRow, match="row 1: it is 5 tokens"):
        answered([[5], [4, 5, 6]], [[5], [5]], PLAIN, RowStyle(4, refuses_longer=True))


def test_whole_texts_share_rows_as_they_fit_and_count_their_own_positions() -> None:
    rows = padded([[4] * 5, [5, 5], [6], [7] * 6, [8]], PLAIN, RowStyle(8, isolates=True))
    assert rows_of(rows) == [[4, 4, 4, 4, 4, 1, 6, 1], [5, 5, 1, 8, 1, 0, 0, 0], [7, 7, 7, 7, 7, 7, 1, 0]]
    assert rows.positions is not None
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1], [0, 1, 2, 0, 1, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 0]]
    assert rows.mask.int().tolist() == [[0, 1, 1, 1, 1, 1, 0, 1], [0, 1, 1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 0]]


@pytest.mark.parametrize("length", [1, 2])
def test_rows_without_room_for_a_token_behind_another_are_refused(length: int) -> None:
    with pytest.raises(UnusableData, match=f"rows of {length} tokens are too short .* take 3 or more"):
        padded([[5]], STARTED, RowStyle(length))


def test_an_empty_text_is_refused_with_its_row() -> None:
    with pytest.raises(UnusableData, match="row 1: the text holds no token: fill it, or remove the row"):
        padded([[5], []], PLAIN, RowStyle(8))
    with pytest.raises(UnusableData, match="row 0: the text holds no token"):
        packed([[]], PLAIN, length=8)
    with pytest.raises(UnusableData, match="row 0: the prompt holds no token"):
        answered([[]], [[5]], PLAIN, RowStyle(8))
    with pytest.raises(UnusableData, match="row 2: the answer holds no token"):
        answered([[5], [5], [5]], [[5], [5], []], PLAIN, RowStyle(8))


def test_less_than_a_row_of_text_is_refused() -> None:
    with pytest.raises(UnusableData, match="all texts together are 4 tokens, less than one row of 5: shorten the rows"):
        packed([[5, 6, 7]], PLAIN, length=5)


# ------------------------------------------------------------ prompts


def prompts(rows: TokenRows, frame: Framing, **limits: int) -> tuple[Tensor, Tensor]:
    return prompts_of(rows.ids, rows.mask, frame, **{"prompt_tokens": 2, "longest": 10, **limits})


def test_prompts_end_side_by_side() -> None:
    rows = answered([[4], [4, 5, 6]], [[7, 8], [9]], STARTED, RowStyle(10))
    ids, real = prompts(rows, STARTED)
    assert ids.tolist() == [[0, 0, 2, 4], [2, 4, 5, 6]]
    assert real.int().tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def test_prompts_that_are_too_long_lose_their_beginning_but_for_what_the_tokenizer_puts_there() -> None:
    rows = answered([[4], [4, 5, 6, 7], [4, 5]], [[7, 8], [9], [9]], STARTED, RowStyle(10))
    assert prompts(rows, STARTED, longest=3)[0].tolist() == [[0, 2, 4], [2, 6, 7], [2, 4, 5]]
    rows = answered([[4], [4, 5, 6, 7]], [[7, 8], [9]], PLAIN, RowStyle(10))
    assert prompts(rows, PLAIN, longest=3)[0].tolist() == [[0, 0, 4], [5, 6, 7]]


def test_a_text_without_an_answer_begins_with_its_prompt() -> None:
    rows = padded([[4, 5, 6, 7], [8]], PLAIN, RowStyle(10))
    assert prompts(rows, PLAIN)[0].tolist() == [[4, 5], [0, 8]]
    assert prompts(rows, PLAIN, prompt_tokens=7)[0].tolist() == [[4, 5, 6, 7], [0, 0, 0, 8]]


def test_what_is_written_goes_behind_its_prompt_up_to_its_end() -> None:
    ids, real = prompts(answered([[4], [4, 5, 6]], [[7, 8], [9]], PLAIN, RowStyle(10)), PLAIN)
    written = torch.tensor([[7, 1, 0], [8, 8, 9]])
    rows = continued(ids, real, written, PLAIN)
    assert rows_of(rows) == [[4, 7, 1, 0, 0, 0], [4, 5, 6, 8, 8, 9]]
    assert learned(rows) == [[7, 1], [8, 8, 9]]
    shorter = continued(ids[:1], real[:1], written[:1], PLAIN)
    assert rows_of(shorter) == [[4, 7, 1]]


def test_where_the_end_is_also_the_padding_the_first_is_the_end() -> None:
    frame = Framing(start=(), end=1, pad=1)
    ids, real = prompts(answered([[4], [4, 5]], [[7], [8]], frame, RowStyle(10)), frame)
    rows = continued(ids, real, torch.tensor([[7, 1, 1], [1, 1, 1]]), frame)
    assert learned(rows) == [[7, 1], [1]]


# ------------------------------------------------------------ from texts


def test_a_trained_tokenizers_texts_become_rows_and_texts_again() -> None:
    texts = some_texts(12)
    tokenizer = train_tokenizer(texts, "bpe", 300, splits_special_tokens=False)
    frame = framing(tokenizer)
    assert frame == Framing(start=(), end=tokenizer.eos_token_id, pad=tokenizer.pad_token_id)
    rows = padded(token_ids(tokenizer, texts), frame, RowStyle(200))
    assert [tokenizer.decode(ids[mask], skip_special_tokens=True) for ids, mask in zip(rows.ids, rows.mask, strict=True)] == texts
    # A chat's markup is what it stands for.
    assert token_ids(tokenizer, ["<|endoftext|>"]) == [[tokenizer.eos_token_id]]


def test_word_pieces_begin_and_end_as_their_tokenizer_has_it() -> None:
    tokenizer = train_tokenizer(some_texts(12), "wordpiece", 100)
    assert framing(tokenizer) == Framing(start=(tokenizer.cls_token_id,), end=tokenizer.sep_token_id, pad=tokenizer.pad_token_id)


@pytest.mark.parametrize("letters", ["ACGT", "abc"])
@pytest.mark.parametrize("model", [models.BPE, models.WordLevel])
def test_what_stands_before_a_text_is_found_whatever_letters_the_tokenizer_knows(model: Any, letters: str) -> None:
    vocabulary = {token: index for index, token in enumerate(("<s>", "</s>", *letters))}
    tokenizer = Tokenizer(model(vocabulary, []) if model is models.BPE else model(vocabulary))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", pad_token="</s>")
    assert framing(fast) == Framing(start=(0,), end=1, pad=1)


def test_a_text_that_its_tokenizer_cannot_read_is_refused_with_its_row() -> None:
    vocabulary = {"</s>": 0, "a": 1, "[UNK]": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))  # whose unknown token would be <unk>
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    for read in (lambda: token_ids(fast, ["a", "b"]), lambda: encode(fast, ["a", "b"], max_length=8)):
        with pytest.raises(UnusableRow, match=r"row 1: the tokenizer cannot read the text 'b' .*: give it an unk_token"):
            read()
    tokenizer.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="[UNK]")
    assert token_ids(fast, ["a", "b"]) == [[1], [2]]


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(plain_tokenizer(tmp_path, pad_token="a"))
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    with pytest.raises(UnreadableTokenizer, match="no token that ends a text: set eos_token"):
        framing(tokenizer)
