"""Tokenizers that are trained, what they make of texts, and their folders."""

import json
import random
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BertConfig, GPT2Config, PreTrainedTokenizerFast

from worker.data import UnusableData
from worker.data.errors import UnreadableTokenizer
from worker.data.text.tokenization import NO_TOKEN, TokenizerKind, encode, load_tokenizer, save_tokenizer, train_tokenizer

KINDS = get_args(TokenizerKind)


def some_texts(count: int = 60, *, seed: int = 0) -> list[str]:
    """Sentences of made-up words, in which many pairs of letters are equally frequent."""
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefgäß") for _ in range(draw.randint(2, 8))) for _ in range(80)]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(3, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return {"bpe": train_tokenizer(some_texts(), "bpe", 320), "wordpiece": train_tokenizer(some_texts(), "wordpiece", 120)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer_in_whatever_order(trained: dict[str, Any], kind: TokenizerKind) -> None:
    shuffled = some_texts()
    random.Random(1).shuffle(shuffled)
    for texts in (some_texts(), shuffled):
        again = train_tokenizer(texts, kind, len(trained[kind]))
        assert again.backend_tokenizer.to_str() == trained[kind].backend_tokenizer.to_str()


def test_word_pieces_stand_between_their_special_tokens_and_join_to_the_words(trained: dict[str, Any]) -> None:
    tokenizer, text = trained["wordpiece"], some_texts()[0]
    ids = encode(tokenizer, [text.upper().replace("SS", "ß")], max_length=64)
    assert tokenizer.convert_ids_to_tokens(ids[0][[0, -1]]) == ["[CLS]", "[SEP]"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == text
    unknown = encode(tokenizer, ["xyz abc"], max_length=64)
    assert unknown[0, 1] == tokenizer.unk_token_id


@pytest.mark.parametrize("text", ["abc deg ", "  Straße,\n\t日本 \N{GRINNING FACE}!"])
def test_bytes_write_every_text_and_give_it_back(trained: dict[str, Any], text: str) -> None:
    tokenizer = trained["bpe"]
    assert tokenizer.decode(encode(tokenizer, [text], max_length=64)[0]) == text
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_padded_at_the_end_to_the_longest_and_cut_with_their_special_tokens(
    trained: dict[str, Any], kind: TokenizerKind
) -> None:
    tokenizer, texts = trained[kind], ["ab", "abcdefg abcdefg abcdefg abcdefg", "gfe dca"]
    alone = [encode(tokenizer, [text], max_length=64)[0] for text in texts]
    together = encode(tokenizer, texts, max_length=64)
    assert together.shape == (3, max(map(len, alone)))
    assert together.dtype is torch.int64
    for row, ids in zip(together, alone, strict=True):
        assert torch.equal(row[: len(ids)], ids)
        assert bool((row[len(ids) :] == NO_TOKEN).all())
    longest = max(alone, key=len)
    cut = encode(tokenizer, texts, max_length=6)[1]
    assert len(cut) == 6
    special = tokenizer.num_special_tokens_to_add() // 2
    assert torch.equal(cut[: 6 - special], longest[: 6 - special])
    assert torch.equal(cut[6 - special :], longest[len(longest) - special :])


@pytest.mark.parametrize(("kind", "text"), [("bpe", "<|pad|> ab <|endoftext|>"), ("wordpiece", "[PAD] ab [SEP]")])
def test_what_looks_like_a_special_token_in_a_text_is_text(trained: dict[str, Any], kind: TokenizerKind, text: str) -> None:
    tokenizer = trained[kind]
    added = tokenizer.num_special_tokens_to_add()
    ids = encode(tokenizer, [text], max_length=64)[0].tolist()
    inner = ids[added // 2 : len(ids) - added // 2]
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id} & set(inner)


@pytest.mark.parametrize(("kind", "text"), [("bpe", ""), ("wordpiece", " \n")])
def test_a_text_without_a_token_is_refused_with_its_place(trained: dict[str, Any], kind: TokenizerKind, text: str) -> None:
    with pytest.raises(UnusableData, match=r"row 2: the text .*holds no token: fill it, or remove the row"):
        encode(trained[kind], ["ab", "cd", text], max_length=16)


def test_a_length_that_the_special_tokens_fill_is_refused(trained: dict[str, Any]) -> None:
    with pytest.raises(UnusableData, match="max_length 2 has no place for text beside 2 special tokens"):
        encode(trained["wordpiece"], ["ab"], max_length=2)


@pytest.mark.parametrize(("kind", "least"), [("bpe", 258), ("wordpiece", 5 + 9 + 9)])
def test_a_vocabulary_too_small_for_the_alphabet_is_refused_with_the_least_that_works(kind: TokenizerKind, least: int) -> None:
    with pytest.raises(UnusableData, match=rf"vocab_size {least - 1} is too small .* alone take {least}. Raise vocab_size"):
        train_tokenizer(some_texts(), kind, least - 1)
    assert len(train_tokenizer(some_texts(), kind, least)) == least


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_nothing_to_learn_from_is_refused(texts: list[str]) -> None:
    with pytest.raises(UnusableData, match="no text to train a tokenizer on"):
        train_tokenizer(texts, "bpe", 300)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [BertConfig(), GPT2Config()], ids=["bert", "gpt2"])
def test_a_folder_gives_the_same_tokenizer_to_this_project_and_to_the_library(
    trained: dict[str, Any], kind: TokenizerKind, config: Any, tmp_path: Path
) -> None:
    tokenizer, texts = trained[kind], some_texts(8, seed=2)
    config.save_pretrained(tmp_path)
    expected = encode(tokenizer, texts, max_length=9)  # which cuts and so leaves a trace in the library's object
    save_tokenizer(tokenizer, tmp_path, max_length=9)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"] is None
    loaded = load_tokenizer(tmp_path)
    assert torch.equal(encode(loaded, texts, max_length=9), expected)
    library = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    batch = library(texts, truncation=True, padding=True, return_tensors="pt")
    assert torch.equal(batch["attention_mask"], (expected != NO_TOKEN).long())
    assert torch.equal(batch["input_ids"], expected.masked_fill(expected == NO_TOKEN, tokenizer.pad_token_id))
    named = f"{tokenizer.eos_token or tokenizer.sep_token} ab"
    assert torch.equal(
        library([named], truncation=True, return_tensors="pt")["input_ids"], encode(tokenizer, [named], max_length=9)
    )
    save_tokenizer(loaded, tmp_path / "again", max_length=9)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "again" / "tokenizer.json").read_bytes()


def plain_tokenizer(folder: Path, **special: str) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2, "<unk>": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def test_a_tokenizer_without_a_pad_token_pads_with_the_token_that_ends_its_texts(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(plain_tokenizer(tmp_path, eos_token="<end>"))
    assert tokenizer.pad_token_id == 2
    assert encode(tokenizer, ["a b a", "b"], max_length=8).tolist() == [[0, 1, 0], [1, NO_TOKEN, NO_TOKEN]]


def test_a_tokenizer_that_has_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTokenizer, match="neither a pad token nor an eos token: set pad_token"):
        load_tokenizer(plain_tokenizer(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused_with_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTokenizer, match=r"tokenizer\.json is missing: write it with"):
        load_tokenizer(tmp_path)
    plain_tokenizer(tmp_path, eos_token="<end>")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UnreadableTokenizer, match=r"tokenizer\.json makes no tokenizer"):
        load_tokenizer(tmp_path)


def test_code_that_a_folder_brings_is_not_run(tmp_path: Path) -> None:
    plain_tokenizer(tmp_path, eos_token="<end>")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    brought = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | brought))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n")
    with pytest.raises(UnreadableTokenizer):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()
