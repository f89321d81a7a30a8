"""The files that sentence-transformers keeps beside an encoder: its modules, pooling, prompt, and how texts are cut.

Forms of all its versions are read. Invariant: what the files say is either computed here or refused.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.models.embedding_network import EmbeddingNetwork
from worker.models.errors import UnreadableNetwork
from worker.models.pooling import POOLING, PoolingMode
from worker.sources.folder_files import MODULES_FILE

PROMPTS_FILE = "config_sentence_transformers.json"
POOLING_FILE = Path("1_Pooling") / "config.json"
ENCODER_FILE = "sentence_bert_config.json"

_MODULE_PREFIX = "sentence_transformers."
_OLDER_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The form before version 5.4, which has a flag for each mode."""
_ENCODER_FILES = [
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_OF_STATES = {"method": "forward", "method_output_name": "last_hidden_state"}


@dataclass(frozen=True)
class EncoderFiles:
    """What the files say; the defaults are what sentence-transformers takes for a folder without them."""

    pooling: tuple[PoolingMode, ...] = ("mean",)
    has_unit_length: bool = False
    max_length: int | None = None
    """Tokens at which texts are cut; None if the tokenizer and the network decide."""
    lowers_case: bool = False
    """Whether texts are put in lower case before the tokenizer's own normalisation."""
    prompt: str = ""
    """Stands before every text."""


def read_encoder_files(folder: Path) -> EncoderFiles:
    """Reads the files beside an encoder.

    Raises:
        UnreadableNetwork: a file is broken, or asks for what is not computed here.
    """
    if not (folder / MODULES_FILE).is_file():
        if (folder / POOLING_FILE).is_file():
            raise UnreadableNetwork(
                f"{POOLING_FILE} is there and {MODULES_FILE} is not, so that sentence-transformers would not read the pooling: "
                "add the other file, or leave this one out for the mean of the tokens"
            )
        return EncoderFiles()
    modules = _modules(folder)
    pooling = _read(folder, Path(modules["Pooling"]) / "config.json")
    if "Normalize" in modules:
        _check_normalize(folder, Path(modules["Normalize"]) / "config.json")
    encoder = next((_read(folder, Path(name)) for name in _ENCODER_FILES if (folder / name).is_file()), {})
    max_length, lowers_case = _read_encoder(encoder)
    prompt = _prompt(folder)
    if prompt and pooling.get("include_prompt") is False:
        raise UnreadableNetwork(
            f"{modules['Pooling']}/config.json leaves the prompt out of the pooling (include_prompt: false), which is not done "
            f"here: set include_prompt to true, or default_prompt_name in {PROMPTS_FILE} to null"
        )
    return EncoderFiles(_pooling(pooling, modules["Pooling"]), "Normalize" in modules, max_length, lowers_case, prompt)


def write_encoder_files(folder: Path, network: EmbeddingNetwork, *, prompt: str) -> None:
    """Writes the files by which sentence-transformers of any version loads the folder."""
    document: dict[str, Any] = {"word_embedding_dimension": network.token_width}
    flags = {name: mode in network.pooling for name, mode in _OLDER_FLAGS.items()}
    if tuple(mode for name, mode in _OLDER_FLAGS.items() if flags[name]) == network.pooling:
        document |= flags
    else:  # the older form has but one order
        document = {"embedding_dimension": network.token_width, "pooling_mode": list(network.pooling)}
    (folder / POOLING_FILE).parent.mkdir(exist_ok=True)
    _write(folder / POOLING_FILE, document)
    kinds = [("", "Transformer"), (POOLING_FILE.parent.name, "Pooling")]
    kinds += [("2_Normalize", "Normalize")] if network.has_unit_length else []
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{_MODULE_PREFIX}models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    _write(folder / MODULES_FILE, modules)
    if prompt:
        _write(folder / PROMPTS_FILE, {"prompts": {"default": prompt}, "default_prompt_name": "default"})


def _modules(folder: Path) -> dict[str, str]:
    """The path of each module, by its kind."""
    listed = _document(folder, Path(MODULES_FILE))
    try:
        found = [(str(module["type"]), str(module.get("path", ""))) for module in listed]
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableNetwork(f"{MODULES_FILE} cannot be read: {type(error).__name__}: {error}") from error
    kinds = [kind.rpartition(".")[2] if kind.startswith(_MODULE_PREFIX) else kind for kind, _ in found]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        others = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
        raise UnreadableNetwork(
            f"{MODULES_FILE} lists {', '.join(kinds) or 'nothing'}, and what can be loaded is Transformer, Pooling and perhaps "
            f"Normalize, in this order: take {', '.join(others) or 'the others'} out of {MODULES_FILE} to have the embeddings "
            "without them"
        )
    paths = {kind: path for kind, (_, path) in zip(kinds, found, strict=True)}
    if paths["Transformer"]:
        raise UnreadableNetwork(
            f"the encoder is in {paths['Transformer']!r}, as early versions of sentence-transformers saved it: load the folder "
            "with SentenceTransformer and save it again with a newer one, which puts the encoder into the folder itself"
        )
    return paths


def _pooling(document: dict[str, Any], path: str) -> tuple[PoolingMode, ...]:
    named = document.get("pooling_mode")
    if named is None:
        modes = [mode for flag, mode in _OLDER_FLAGS.items() if document.get(flag)]
        unknown = [
            flag for flag, is_on in document.items() if flag.startswith("pooling_mode_") and is_on and flag not in _OLDER_FLAGS
        ]
        named = [*modes, *unknown] or ["mean"]
    names: Sequence[Any] = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    known = tuple(mode for name in names for mode in POOLING if mode == name)
    if not names or len(known) != len(names):
        raise UnreadableNetwork(
            f"{path}/config.json pools by {named!r}; pooling is by {', '.join(POOLING)}, one or several of them"
        )
    return known


def _read_encoder(document: dict[str, Any]) -> tuple[int | None, bool]:
    """Tokens at which texts are cut, and whether they are put in lower case."""
    if refused := sorted(_refused_fields(document)):
        raise UnreadableNetwork(
            f"{ENCODER_FILE} has {', '.join(refused)}, which is not computed here: leave it out if the encoder computes the same "
            "without it"
        )
    length = document.get("max_seq_length")
    if length is not None and not (isinstance(length, int) and length > 0):
        raise UnreadableNetwork(
            f"{ENCODER_FILE}: max_seq_length is {length!r:.80}, not a number of tokens: set it, or leave it out"
        )
    return length, bool(document.get("do_lower_case"))


def _refused_fields(document: dict[str, Any]) -> Iterator[str]:
    """Fields of an encoder's settings that change its states. Those without a value, and those that are known, do not."""
    for name, value in document.items():
        match name:
            case "max_seq_length" | "do_lower_case" | "unpad_inputs":
                continue
            case "transformer_task" if value == "feature-extraction":
                continue
            case "module_output_name" if value == "token_embeddings":
                continue
            case "modality_config" if isinstance(value, dict) and value.get("text") == _OF_STATES:
                continue
        if value not in (None, {}, ""):
            yield name


def _check_normalize(folder: Path, path: Path) -> None:
    document = _read(folder, path) if (folder / path).is_file() else {}
    names = {document.get(name) for name in ("module_input_name", "module_output_name")} - {None}
    if names - {"sentence_embedding"}:
        raise UnreadableNetwork(
            f"{path} normalises {', '.join(map(str, names))}: only the embedding of the text can be normalised"
        )


def _prompt(folder: Path) -> str:
    path = Path(PROMPTS_FILE)
    if not (folder / path).is_file():
        return ""
    document = _read(folder, path)
    kind = document.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise UnreadableNetwork(f"{path} is of a {kind}, and what can be loaded is a SentenceTransformer: choose another teacher")
    name, prompts = document.get("default_prompt_name"), document.get("prompts")
    if name is None:
        return ""
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise UnreadableNetwork(
            f"{path}: default_prompt_name is {name!r:.80}, which is none of prompts: add it there, or set it to null"
        )
    return prompt


def _read(folder: Path, path: Path) -> dict[str, Any]:
    document = _document(folder, path)
    if not isinstance(document, dict):
        raise UnreadableNetwork(f"{path} holds {type(document).__name__}, not an object")
    return document


def _document(folder: Path, path: Path) -> Any:
    if path.is_absolute() or ".." in path.parts:
        raise UnreadableNetwork(f"{MODULES_FILE} names {str(path)!r}, which is outside the folder")
    try:
        return json.loads((folder / path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableNetwork(f"{path} cannot be read: {error}") from error


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
