"""Tokenizers, trained on a dataset's own texts or loaded with a network, and the token ids of texts. N texts, L tokens.

A tokenizer is the library's own, so that a student's folder loads with ``AutoTokenizer.from_pretrained``. Invariants: the same
texts give the same tokenizer, byte for byte; every tokenizer made or loaded here has a pad token and cuts texts at their
end or beginning, as it says itself; no code of a folder is run. For the ids of :func:`encode`, ``ids != NO_TOKEN`` is the
attention mask. A row of tokens is one tensor also for a pair of texts: each token's type stands beside its id in the same number,
see :func:`with_types`, and a token of type 0 is its id.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from service.formats import TextPair
from worker.data.errors import UnreadableTokenizer, UnusableData, UnusableRow
from worker.data.raw_inputs import are_pairs
from worker.data.text.language import Framing

TokenizerKind = Literal["bpe", "wordpiece"]

TOKENIZER_FILE = "tokenizer.json"
END_OF_TEXT, PAD_OF_BPE = "<|endoftext|>", "<|pad|>"
PAD, UNKNOWN, START, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
CONTINUED = "##"
"""Prefix of a subword that continues a word."""
NO_TOKEN = -1
"""Fills a row after its text's end. It is no token's id: the token that a tokenizer pads with may also stand in a text, and a
network may look for padding by another id than its tokenizer pads with."""

# A network's other arguments, such as BERT's token types, are the same for every text here and have defaults.
_MODEL_INPUTS = ["input_ids", "attention_mask"]
_TYPES_FIELD = "token_type_ids"
MAX_VOCABULARY = 2**24
"""Ids are below it, so that a token's type has room above them."""
_BATCH_TEXTS = 1024


def train_tokenizer(
    texts: Iterable[str],
    kind: TokenizerKind,
    vocab_size: int,
    *,
    splits_special_tokens: bool = True,
    reads_pairs: bool = False,
) -> Any:
    """Trains a ``PreTrainedTokenizerFast`` on texts; few texts may give a smaller vocabulary than ``vocab_size``.

    ``bpe`` is GPT-2's: byte-level, so that every text can be encoded, and ``<|endoftext|>`` to begin and end texts, which
    :func:`encode` does not add. ``wordpiece`` is BERT's: ``[CLS] … [SEP]``, lower-case, with accents; a word with a character
    that is in no training text becomes ``[UNK]``. With ``splits_special_tokens`` the name of a special token in a text is encoded
    as text; the folder says so, and the library reads it. With ``reads_pairs`` it makes one row of two texts: wordpiece's as
    BERT's, ``[CLS] … [SEP] … [SEP]`` with token types, bpe's with ``<|endoftext|>`` between them.

    Raises:
        UnusableData: every text is empty, or ``vocab_size`` is too small for the single characters.
    """
    if not any(text.strip() for text in texts):
        raise UnusableData("there is no text to train a tokenizer on: every text of the training split is empty")
    tokenizer = _train_bpe(texts, vocab_size, reads_pairs=reads_pairs) if kind == "bpe" else _train_wordpiece(texts, vocab_size)
    needed = tokenizer.get_vocab_size()
    if needed > vocab_size:
        raise UnusableData(
            f"vocab_size {vocab_size} is too small for a {kind} tokenizer: the texts' characters and the special tokens alone "
            f"take {needed}. Raise vocab_size{'' if kind == 'bpe' else ', or train bpe, whose alphabet is 256 bytes'}"
        )
    if kind == "bpe":
        special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD_OF_BPE}
    else:
        special = {
            "pad_token": PAD,
            "unk_token": UNKNOWN,
            "cls_token": START,
            "sep_token": SEPARATOR,
            "mask_token": MASK,
        }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=[*_MODEL_INPUTS, *([_TYPES_FIELD] if reads_pairs and kind == "wordpiece" else [])],
        split_special_tokens=splits_special_tokens,
        **special,
    )


def encode(tokenizer: Any, texts: Sequence[str], *, max_length: int | None) -> Tensor:
    """Encodes texts as token ids (N, L), int64, as the tokenizer itself does; L is the longest text's length.

    Texts are cut at ``max_length`` tokens, if it is given, and keep the tokenizer's own special tokens. Shorter rows end with
    ``NO_TOKEN``.

    Raises:
        UnusableRow: a text holds no token, or the tokenizer has none for a character of it.
        UnusableData: ``max_length`` leaves no room for one.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise UnusableData(f"max_length {max_length} has no place for text beside {special} special tokens: raise it")
    rows: list[Tensor] = []
    for start in range(0, len(texts), _BATCH_TEXTS):
        some = texts[start : start + _BATCH_TEXTS]
        for ids in _ids(tokenizer, some, first=start, truncation=max_length is not None, max_length=max_length):
            if len(ids) <= special:
                raise UnusableRow(len(rows), f"the text {texts[len(rows)][:40]!r} holds no token: fill it, or remove the row")
            rows.append(torch.tensor(ids, dtype=torch.int64))
    if not rows:
        return torch.empty(0, 0, dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_TOKEN)


def encode_pairs(tokenizer: Any, pairs: Sequence[TextPair], *, max_length: int | None) -> Tensor:
    """Encodes pairs of texts as :func:`encode` does texts, with the types of tokens where the tokenizer gives them.

    The tokenizer itself decides what stands around and between the two. Where a pair has more than ``max_length`` tokens, the
    longer text loses one after the other.

    Raises:
        UnusableRow: one of the texts holds no token, or the tokenizer has none for a character of it.
        UnusableData: ``max_length`` leaves no room for a token of each.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    if max_length is not None and max_length < special + 2:
        raise UnusableData(f"max_length {max_length} has no place for two texts beside {special} special tokens: raise it")
    rows: list[Tensor] = []
    for start in range(0, len(pairs), _BATCH_TEXTS):
        for encoded in _encode_pairs(tokenizer, pairs[start : start + _BATCH_TEXTS], first=start, max_length=max_length):
            pair = pairs[len(rows)]
            if absent := [text for index, text in enumerate(pair) if index not in encoded.sequence_ids]:
                raise UnusableRow(len(rows), f"the text {absent[0][:40]!r} holds no token: fill it, or remove the row")
            ids = torch.tensor(encoded.ids, dtype=torch.int64)
            rows.append(with_types(ids, torch.tensor(encoded.type_ids)) if gives_token_types(tokenizer) else ids)
    if not rows:
        return torch.empty(0, 0, dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_TOKEN)


def count_pair_tokens(tokenizer: Any, pairs: Sequence[TextPair], *, max_length: int | None) -> Tensor:
    """Tokens of each of the two texts of pairs, without special tokens: (N, 2)."""
    encoded = _encode_pairs(tokenizer, pairs, first=0, max_length=max_length) if pairs else []
    counts = [[each.sequence_ids.count(index) for index in range(2)] for each in encoded]
    return torch.tensor(counts, dtype=torch.int64).reshape(-1, 2)


def gives_token_types(tokenizer: Any) -> bool:
    """Whether the library calls a network with the types of this tokenizer's tokens."""
    return _TYPES_FIELD in tokenizer.model_input_names


def with_types(ids: Tensor, types: Tensor) -> Tensor:
    """Puts types, of the shape of the ids, beside them; a place after a row's end has none."""
    return ids + types * (ids != NO_TOKEN) * MAX_VOCABULARY


def split_types(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The ids, and the types, of tokens; after a row's end ``NO_TOKEN`` and 0."""
    types = tokens.clamp(min=0).div(MAX_VOCABULARY, rounding_mode="floor")
    return tokens - types * MAX_VOCABULARY, types


def longest(tokenizer: Any, texts: Sequence[str] | Sequence[TextPair]) -> int:
    """Tokens of the longest text or pair, special tokens included; 0 without texts. Raises UnusableRow."""
    lengths = [0]
    for start in range(0, len(texts), _BATCH_TEXTS):
        some = texts[start : start + _BATCH_TEXTS]
        if are_pairs(some):
            lengths += [len(each.ids) for each in _encode_pairs(tokenizer, some, first=start, max_length=None)]
        else:
            lengths += map(len, _ids(tokenizer, cast(Sequence[str], some), first=start))
    return max(lengths)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Encodes each text whole, without added special tokens. A special token's name in a text (chat markup) is that token."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), _BATCH_TEXTS):
        ids += _ids(tokenizer, texts[start : start + _BATCH_TEXTS], first=start, add_special_tokens=False)
    return ids


def _ids(tokenizer: Any, texts: Sequence[str], *, first: int, **settings: Any) -> list[list[int]]:
    """The ids of some texts, of which the first is row ``first``."""
    settings |= {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    try:
        ids: list[list[int]] = tokenizer(list(texts), **settings)["input_ids"]
    except Exception as error:  # the library raises plain Exception for a character that a tokenizer has no token for
        if len(texts) > 1:
            return [_ids(tokenizer, [text], first=first + index, **settings)[0] for index, text in enumerate(texts)]
        problem = f"the tokenizer cannot read the text {texts[0][:40]!r} ({str(error)[:200]}): give it an unk_token"
        raise UnusableRow(first, f"{problem}, or remove the row") from error
    return ids


def _encode_pairs(tokenizer: Any, pairs: Sequence[TextPair], *, first: int, max_length: int | None) -> list[Encoding]:
    """The encodings of some pairs, of which the first is row ``first``."""
    first_texts, second_texts = map(list, zip(*pairs, strict=True))
    cut = "longest_first" if max_length is not None else False
    try:
        encoded = tokenizer(first_texts, second_texts, truncation=cut, max_length=max_length, verbose=False)
    except Exception as error:  # the library raises plain Exception for a character that a tokenizer has no token for
        if len(pairs) > 1:
            numbered = enumerate(pairs, start=first)
            return [_encode_pairs(tokenizer, [pair], first=row, max_length=max_length)[0] for row, pair in numbered]
        shown = " and ".join(repr(text[:40]) for text in pairs[0])
        problem = f"the tokenizer cannot read the texts {shown} ({str(error)[:200]}): give it an unk_token"
        raise UnusableRow(first, f"{problem}, or remove the row") from error
    found: list[Encoding] = encoded.encodings
    return found


def start_and_end(tokenizer: Any) -> tuple[int | None, int | None]:
    """The ids of the tokens that begin and end a text: BOS, else CLS; EOS, else SEP. None for one that the tokenizer lacks."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return start, end


def framing(tokenizer: Any) -> Framing:
    """Finds the special tokens around a language model's text: those that the tokenizer puts before it, and its end token.

    Raises:
        UnreadableTokenizer: the tokenizer has no token that ends a text, or no token but special ones.
    """
    _, end = start_and_end(tokenizer)
    if end is None:
        raise UnreadableTokenizer("the tokenizer has no token that ends a text: set eos_token and save it again")
    encoded = tokenizer(_some_text(tokenizer), return_special_tokens_mask=True)
    first = next((index for index, is_added in enumerate(encoded["special_tokens_mask"]) if not is_added), 0)
    return Framing(start=tuple(encoded["input_ids"][:first]), end=end, pad=tokenizer.pad_token_id)


def _some_text(tokenizer: Any) -> str:
    """A text of which the tokenizer leaves something: one of DNA, say, knows neither "a" nor an unknown token."""
    special = set(tokenizer.all_special_tokens)
    tokens: Iterator[str] = (token for token in tokenizer.get_vocab() if token not in special)
    for text in ("a", *tokens):
        try:
            if token_ids(tokenizer, [text])[0]:
                return text
        except UnusableRow:
            continue
    raise UnreadableTokenizer("the tokenizer has no token but special ones: save the tokenizer that the network was trained with")


def tokenizer_settings(tokenizer: Any, *, prompt: str = "") -> str:
    """Everything of a tokenizer that a text's ids depend on, and what stands before every text, as one string."""
    # The serialisation also holds the length that the last encoding was truncated to.
    parts = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    how = [tokenizer.pad_token_id, tokenizer.truncation_side, tokenizer.split_special_tokens, prompt]
    return json.dumps([parts, special, *how], sort_keys=True)


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers give every text the same ids, and the ids the same tokens."""
    return one is other or tokenizer_settings(one) == tokenizer_settings(other)


def save_tokenizer(tokenizer: Any, folder: Path, *, max_length: int, has_token_types: bool = False) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``; the network reads ``max_length`` tokens at most.

    A network that was trained without token types must not get them from the tokenizer of its teacher.
    """
    tokenizer = copy.copy(tokenizer)
    tokenizer.model_max_length = max_length
    tokenizer.model_input_names = [*_MODEL_INPUTS, *([_TYPES_FIELD] if has_token_types else [])]
    # The truncation and padding of the last encoding would be written as well.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a ``from_pretrained`` folder. One without a pad token pads with its end token.

    Raises:
        UnreadableTokenizer: the folder has no tokenizer that can be loaded.
    """
    if not (folder / TOKENIZER_FILE).is_file():
        raise UnreadableTokenizer(f"{TOKENIZER_FILE} is missing: write it with tokenizer.save_pretrained of a fast tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises plain Exception for a broken file
        raise UnreadableTokenizer(f"{TOKENIZER_FILE} makes no tokenizer: {type(error).__name__}: {str(error)[:500]}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UnreadableTokenizer("the tokenizer has neither a pad token nor an eos token: set pad_token and save it again")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # what is saved here is padded at the end
    return tokenizer


def _train_bpe(texts: Iterable[str], vocab_size: int, *, reads_pairs: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD_OF_BPE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    plain = processors.ByteLevel(trim_offsets=False)
    between = processors.TemplateProcessing(
        single="$A", pair=f"$A {END_OF_TEXT} $B", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    tokenizer.post_processor = processors.Sequence([plain, between]) if reads_pairs else plain
    return tokenizer


def _train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    special = [PAD, UNKNOWN, START, SEPARATOR, MASK]
    trained = _wordpiece({})
    # The library numbers continuing characters in the order of a hash map of the words, which differs from run to run, and breaks
    # ties between merges by these numbers. Given as special tokens, the characters are numbered in the order given.
    continued = sorted({character for text in texts for word in _words(trained, text) for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=special + [f"{CONTINUED}{character}" for character in continued],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = _wordpiece(trained.get_vocab())
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {SEPARATOR}",
        pair=f"{START} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, SEPARATOR)],
    )
    return tokenizer


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUED))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUED)
    return tokenizer


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]
