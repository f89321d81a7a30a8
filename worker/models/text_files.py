"""The preprocessing of a text network that somebody saved: its tokenizer as it is, and the tokens at which texts are cut.

Invariant: what the network is given is what ``AutoTokenizer`` makes of each text alone; where config and tokenizer disagree about
padding so that the network would look for it in vain, the folder is refused.
"""

from pathlib import Path
from typing import Any, cast

from tokenizers import normalizers

from service.spec.transformers_fit import COUNTS_FROM_PADDING, POSITIONS, first_position, has_position_embeddings
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.texts import TextPreprocessing
from worker.data.text.tokenization import gives_token_types, load_tokenizer
from worker.data.text.words import WordPreprocessing
from worker.models.encoder_files import EncoderFiles
from worker.models.errors import UnreadableNetwork

_NO_LIMIT = 10**9
"""A tokenizer without a limit has a ``model_max_length`` far above this."""
_POOLS_LAST_TOKEN = {"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3"}
"""Networks whose classifier reads the last token that is not ``pad_token_id``."""
_EMBEDS_TOKEN_TYPES = {"gpt2", "gpt_neo"}
"""Networks for which token types of 0 are not the same as none: they add the embedding of token 0 to every token."""
_READS_TOKEN_TYPES = {"albert", "bert", "deberta-v2", "electra", "mobilebert", "roberta", "xlm-roberta", *_EMBEDS_TOKEN_TYPES}


def read_classifier_preprocessing(folder: Path, config: Any) -> TextPreprocessing:
    """Reads the tokenizer beside a classifier of that ``config``, which gets the tokenizer's pad token if it has none.

    Raises:
        UnreadableNetwork: a file is missing or broken, or network and tokenizer do not fit each other.
        UnreadableTokenizer: there is no tokenizer that can be loaded.
    """
    tokenizer = _read_tokenizer(folder, config)
    limit, has_limit = _limit(config, own=tokenizer.model_max_length)
    _agree_on_padding(tokenizer, config, finds_padding=config.model_type in _POOLS_LAST_TOKEN)
    return TextPreprocessing(tokenizer, limit, has_limit=has_limit)


def read_word_preprocessing(folder: Path, config: Any) -> WordPreprocessing:
    """:func:`read_classifier_preprocessing` for a classifier of words: it reads every token, and looks for no padding."""
    tokenizer = _read_tokenizer(folder, config)
    limit, has_limit = _limit(config, own=tokenizer.model_max_length)
    _agree_on_padding(tokenizer, config, finds_padding=False)
    return WordPreprocessing(tokenizer, limit, has_limit=has_limit)


def read_encoder_preprocessing(folder: Path, config: Any, files: EncoderFiles) -> TextPreprocessing:
    """:func:`read_classifier_preprocessing` for an encoder whose embeddings are read, with the ``files`` beside it."""
    tokenizer = _read_tokenizer(folder, config, lowers_case=files.lowers_case)
    # Where nothing else says it, sentence-transformers cuts at the positions, and the library's classifiers not at all.
    limit, _ = _limit(config, own=files.max_length or tokenizer.model_max_length)
    _agree_on_padding(tokenizer, config, finds_padding=False)
    return TextPreprocessing(tokenizer, limit, prompt=files.prompt)


def read_language_preprocessing(folder: Path, config: Any) -> LanguagePreprocessing:
    """Reads the tokenizer beside a causal language model of that ``config``. Raises as the others do."""
    tokenizer = _read_tokenizer(folder, config)
    model_type = config.model_type
    if model_type in _EMBEDS_TOKEN_TYPES and "token_type_ids" in tokenizer.model_input_names:
        raise UnreadableNetwork(
            f"the tokenizer gives token_type_ids, which {model_type} adds to every token as the embedding of token 0: take them "
            "out of model_input_names in tokenizer_config.json, as they are not in the rows of a language model"
        )
    return LanguagePreprocessing(tokenizer, _limit(config, own=tokenizer.model_max_length)[0])


def _read_tokenizer(folder: Path, config: Any, *, lowers_case: bool = False) -> Any:
    tokenizer = load_tokenizer(folder)
    if lowers_case:
        _put_in_lower_case(tokenizer)
    _check_vocabulary(tokenizer, config)
    _check_token_types(tokenizer, config.model_type)
    return tokenizer


def _limit(config: Any, *, own: int) -> tuple[int, bool]:
    """The tokens at which texts are cut, and whether a limit of ``own``, or of the network, is what says so."""
    positions = next((getattr(config, name) for name in POSITIONS if isinstance(getattr(config, name, None), int)), None)
    if positions is None:
        raise UnreadableNetwork(f"config.json does not say how many tokens the network reads: set {POSITIONS[0]}")
    positions -= first_position(config.model_type, config.pad_token_id)
    is_bound = has_position_embeddings(config.to_dict())
    return (min(positions, own) if is_bound or own >= _NO_LIMIT else own), is_bound or own < _NO_LIMIT


def has_token_types(tokenizer: Any, model_type: str) -> bool:
    """Whether the library calls such a network with the token types that its tokenizer gives, and they may change its outputs."""
    return model_type in _READS_TOKEN_TYPES and gives_token_types(tokenizer)


def can_read_token_types(config: Any) -> bool:
    """Whether a network of that ``config``, built here, has an embedding for the types of both texts of a pair."""
    return config.model_type in _READS_TOKEN_TYPES - _EMBEDS_TOKEN_TYPES and getattr(config, "type_vocab_size", 0) > 1


def _put_in_lower_case(tokenizer: Any) -> None:
    """Adds the lower case that an encoder's ``do_lower_case`` asks for, as sentence-transformers does."""
    backend = tokenizer.backend_tokenizer
    own = backend.normalizer
    each = list(cast(Any, own)) if isinstance(own, normalizers.Sequence) else [] if own is None else [own]
    if not any(isinstance(normalizer, normalizers.Lowercase) for normalizer in each):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *each])


def _check_vocabulary(tokenizer: Any, config: Any) -> None:
    greatest = max(tokenizer.get_vocab().values(), default=-1)
    if greatest >= config.vocab_size:
        raise UnreadableNetwork(
            f"the tokenizer has ids up to {greatest}, and config.json a vocab_size of {config.vocab_size}: "
            "save both of one network, or give the network the added tokens by model.resize_token_embeddings(len(tokenizer))"
        )


def _check_token_types(tokenizer: Any, model_type: str) -> None:
    """Refuses token types that the library would embed and that are not given here."""
    if "token_type_ids" not in tokenizer.model_input_names or model_type not in _READS_TOKEN_TYPES:
        return
    types = set(tokenizer("a")["token_type_ids"])
    if types - {0}:
        raise UnreadableNetwork(
            f"the tokenizer gives the tokens of a single text the token types {sorted(types)}, and only 0 is computed here: "
            "save it with a post-processor that gives 0, or take token_type_ids out of model_input_names in tokenizer_config.json"
        )


def _agree_on_padding(tokenizer: Any, config: Any, *, finds_padding: bool) -> None:
    """Gives a config without a pad token that of the tokenizer. Elsewhere the network's own may differ: its padding is masked.

    ``finds_padding``: whether the network itself looks for padding by that token.
    """
    own, theirs = config.pad_token_id, tokenizer.pad_token_id
    if own is None and config.model_type in COUNTS_FROM_PADDING:
        raise UnreadableNetwork(
            f"config.json has no pad_token_id, from which {config.model_type} counts positions: set it to that of the network's "
            f"training; the tokenizer pads with {theirs} ({tokenizer.pad_token!r})"
        )
    if finds_padding and own is not None and own != theirs:
        raise UnreadableNetwork(
            f"config.json has pad_token_id {own}, and the tokenizer pads with {theirs} ({tokenizer.pad_token!r}): "
            f"{config.model_type} classifies by the last token that is not pad_token_id; set it to {theirs} in config.json"
        )
    if own is None or not 0 <= own < config.vocab_size:
        if finds_padding and tokenizer("a")["input_ids"][-1:] == [theirs]:
            raise UnreadableNetwork(
                f"config.json has no pad_token_id, and the tokenizer ends texts with the token that it pads with, {theirs} "
                f"({tokenizer.pad_token!r}): {config.model_type} classifies by the last token that is not padding; set "
                f"pad_token_id to {theirs} in config.json to leave that token out, or give the tokenizer a pad_token of its own"
            )
        config.pad_token_id = theirs
