"""The preprocessing of a text network that somebody saved: its tokenizer as it is, and the tokens at which texts are cut.

Invariant: what the network is given is what ``AutoTokenizer`` makes of each text alone; where config and tokenizer disagree about
padding so that the network would look for it in vain, the folder is refused.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tokenizers import normalizers

from service.spec.data import EMBEDDING
from service.spec.transformers_fit import CAUSAL, COUNTS_FROM_PADDING, POSITIONS, first_position, has_position_embeddings
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.text import TextPreprocessing
from worker.data.tokenization import load_tokenizer
from worker.models.encoder_files import EncoderFiles, read_encoder_files
from worker.models.errors import UnreadableNetwork

_NO_LIMIT = 10**9
"""A tokenizer without a limit has a ``model_max_length`` far above this."""
_POOLS_LAST_TOKEN = {"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3"}
"""Networks whose classifier reads the last token that is not ``pad_token_id``."""
_EMBEDS_TOKEN_TYPES = {"gpt2", "gpt_neo"}
"""Networks for which token types of 0 are not the same as none: they add the embedding of token 0 to every token."""
_READS_TOKEN_TYPES = {"albert", "bert", "deberta-v2", "electra", "mobilebert", "roberta", "xlm-roberta", *_EMBEDS_TOKEN_TYPES}


def read_text_preprocessing(folder: Path, config: Any, *, task: str) -> LanguagePreprocessing | TextPreprocessing:
    """Reads the tokenizer beside a network of that ``config``, which gets the tokenizer's pad token if it has none.

    Raises:
        UnreadableNetwork: a file is missing or broken, or network and tokenizer do not fit each other.
        UnreadableTokenizer: there is no tokenizer that can be loaded.
    """
    tokenizer = load_tokenizer(folder)
    files = read_encoder_files(folder) if task == EMBEDDING else EncoderFiles()
    if files.lowers_case:
        _put_in_lower_case(tokenizer)
    _check_vocabulary(tokenizer, config)
    _check_token_types(tokenizer, config.model_type, task=task)
    positions = next((getattr(config, name) for name in POSITIONS if isinstance(getattr(config, name, None), int)), None)
    if positions is None:
        raise UnreadableNetwork(f"config.json does not say how many tokens the network reads: set {POSITIONS[0]}")
    positions -= first_position(config.model_type, config.pad_token_id)
    own = files.max_length or tokenizer.model_max_length
    limit = min(positions, own) if has_position_embeddings(config.to_dict()) or own >= _NO_LIMIT else own
    if task == CAUSAL:
        return LanguagePreprocessing(tokenizer, limit)
    _agree_on_padding(tokenizer, config, task=task)
    reads = TextPreprocessing(tokenizer, limit, is_embedded=task == EMBEDDING, prompt=files.prompt)
    # Where nothing else says it, sentence-transformers cuts at the positions, and the library's classifiers not at all.
    has_limit = has_position_embeddings(config.to_dict()) or own < _NO_LIMIT or task == EMBEDDING
    return replace(reads, has_limit=has_limit)


def has_token_types(tokenizer: Any, model_type: str) -> bool:
    """Whether the library calls such a network with the token types that its tokenizer gives, and they change its outputs."""
    return model_type in _EMBEDS_TOKEN_TYPES and "token_type_ids" in tokenizer.model_input_names


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


def _check_token_types(tokenizer: Any, model_type: str, *, task: str) -> None:
    """Refuses token types that the library would embed and that are not given here."""
    if "token_type_ids" not in tokenizer.model_input_names or model_type not in _READS_TOKEN_TYPES:
        return
    types = set(tokenizer("a")["token_type_ids"])
    if types - {0}:
        raise UnreadableNetwork(
            f"the tokenizer gives the tokens of a single text the token types {sorted(types)}, and only 0 is computed here: "
            "save it with a post-processor that gives 0, or take token_type_ids out of model_input_names in tokenizer_config.json"
        )
    if task == CAUSAL and model_type in _EMBEDS_TOKEN_TYPES:
        raise UnreadableNetwork(
            f"the tokenizer gives token_type_ids, which {model_type} adds to every token as the embedding of token 0: take them "
            "out of model_input_names in tokenizer_config.json, as they are not in the rows of a language model"
        )


def _agree_on_padding(tokenizer: Any, config: Any, *, task: str) -> None:
    """Gives a config without a pad token that of the tokenizer. Elsewhere the network's own may differ: its padding is masked."""
    own, theirs = config.pad_token_id, tokenizer.pad_token_id
    if own is None and config.model_type in COUNTS_FROM_PADDING:
        raise UnreadableNetwork(
            f"config.json has no pad_token_id, from which {config.model_type} counts positions: set it to that of the network's "
            f"training; the tokenizer pads with {theirs} ({tokenizer.pad_token!r})"
        )
    finds_padding = task == "text-classification" and config.model_type in _POOLS_LAST_TOKEN
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
