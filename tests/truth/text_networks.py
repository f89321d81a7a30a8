"""Tiny text networks with tokenizers of their own, saved as people save them, and raw texts of several kinds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.truth.subject import Settings

POSITIONS = 24
WORDS = ["alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota"]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
UNKNOWN, START, END, PAD = "[UNK]", "[CLS]", "[SEP]", "[PAD]"
SPECIAL = [UNKNOWN, START, END, PAD]
CLASSES = ["anger", "joy", "sadness"]

TEXT_SWITCHES = {
    "tokenizer": ["wordpiece", "bpe", "unigram"],
    "special tokens": ["start and end", "none", "end"],
    "letters": ["small", "as they are"],
    "pad token": ["the config's", "not the config's", "none in the config", "the end token"],
    "padding side": ["right", "left"],
    "cut at": ["the tokenizer's limit", "nothing"],
    "cut side": ["right", "left"],
    "token types": ["not given", "given"],
    "names of special tokens": ["special", "text"],
    "texts": ["short", "long", "odd"],
    "file": ["jsonl", "csv"],
}
"""The switches of a tokenizer, what its network says of padding, and the raw texts."""
ALONE = {"token types": ["given, not 0"], "texts": ["with one of nothing"]}
"""Values of them that are refused wherever they matter."""

_SHORT = ["a beta gamma", "delta a", "zeta eta a iota beta", "iota", "gamma a a delta", "theta alpha", "a beta", "eta a zeta"]
_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "conv_kernel_size": 3, "position_biased_input": False}
_GLOBAL_AND_LOCAL = [[["global", "local"], 1]]
_SMALL: dict[str, dict[str, Any]] = {
    "albert": _BERT | {"embedding_size": 8},
    "deberta-v2": {**_BERT, **_DEBERTA},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": _BERT | {"embedding_size": 8},
    "gpt2": {"n_layer": 2, "n_embd": 16, "n_head": 2},
    "gpt_neo": {
        "num_layers": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "mobilebert": _BERT | {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": _BERT | {"global_attn_every_n_layers": 2, "local_attention": 8},
    "opt": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 8},
    **{name: _BERT | {"num_key_value_heads": 1} for name in ("llama", "mistral", "qwen2", "qwen3")},
}


def texts_of(kind: str) -> list[str]:
    """Raw texts; those of several lengths stand in one batch."""
    more = {
        "short": [],
        "long": [" ".join(WORDS[(place * 3) % 8] for place in range(60)), " ".join(WORDS[place % 7] for place in range(25))],
        "odd": [
            "Straße ÉTÉ 日本 x",
            "[SEP] alpha [PAD]",
            "ALPHA Beta",
            "a\tb\u00a0c \N{WOMAN}\u200d\N{GIRL}",
            " beta ",
            "eta [SEP]",
        ],
        "with one of nothing": ["\u200b\u200d"],
    }
    return [*_SHORT, *more[kind]]


def make_tokenizer(settings: Settings) -> Any:
    """A tokenizer with those switches, for which id 0 is a word."""
    tokenizer = _MAKE[settings["tokenizer"]](settings)
    added = {"start and end": [START, "$A", END], "end": ["$A", END], "none": ["$A"]}[settings["special tokens"]]
    second = ["$B:1", *(f"{part}:1" for part in added if part == END)]
    if settings["token types"] == "given, not 0":
        added = [f"{part}:1" for part in added]
    ids = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=added, pair=added + second, special_tokens=ids)
    given = [] if settings["token types"] == "not given" else ["token_type_ids"]
    limit = {"model_max_length": POSITIONS - 8} if settings["cut at"] == "the tokenizer's limit" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        cls_token=START,
        sep_token=END,
        pad_token=END if settings["pad token"] == "the end token" else PAD,
        padding_side=settings["padding side"],
        truncation_side=settings["cut side"],
        split_special_tokens=settings["names of special tokens"] == "text",
        model_input_names=["input_ids", *given, "attention_mask"],
        **limit,
    )


def save_network(auto_class: Any, model_type: str, settings: Settings, folder: Path, **fields: Any) -> None:
    """Saves a network of random weights with its tokenizer."""
    tokenizer = make_tokenizer(settings)
    differs = settings["pad token"] == "not the config's"
    usual = {
        "vocab_size": len(tokenizer) + 3,
        "n_positions" if model_type == "gpt2" else "max_position_embeddings": POSITIONS,
        "pad_token_id": 0 if differs else tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = AutoConfig.for_model(model_type, **_SMALL.get(model_type, _BERT) | usual | fields)
    torch.manual_seed(0)
    model = auto_class.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if settings["pad token"] == "none in the config":
        document = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(document | {"pad_token_id": None}))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes JSON Lines, or CSV with every field quoted."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    quoted = [",".join('"' + value.replace('"', '""') + '"' for value in line) for line in lines]
    path.write_text("\n".join(quoted), encoding="utf-8")


def _wordpiece(settings: Settings) -> Tokenizer:
    tokens = ["a", *SPECIAL, *WORDS, *LETTERS[1:], *(f"##{letter}" for letter in LETTERS)]
    model = models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token=UNKNOWN)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings["letters"] == "small", strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _bpe(settings: Settings) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase() if settings["letters"] == "small" else normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings["tokenizer"] == "bpe behind spaces")
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["a", *SPECIAL], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["".join(f" {word}" for word in WORDS)] * 2, trainer)
    return tokenizer


def _unigram(settings: Settings) -> Tokenizer:
    words = [f"▁{word}" for word in WORDS]
    scores = [("a", -2.0), *((token, 0.0) for token in SPECIAL), *((word, -1.0) for word in words), ("▁", -3.0)]
    scores += [(letter, -4.0) for letter in LETTERS[1:]]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=1, byte_fallback=False))
    each = [normalizers.NFKC(), *([normalizers.Lowercase()] if settings["letters"] == "small" else [])]
    tokenizer.normalizer = normalizers.Sequence(each)
    scheme: Any = "first" if settings["tokenizer"] == "unigram, one space" else "always"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


_MAKE = {
    "wordpiece": _wordpiece,
    "bpe": _bpe,
    "bpe behind spaces": _bpe,
    "unigram": _unigram,
    "unigram, one space": _unigram,
}
