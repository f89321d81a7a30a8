"""What a network's files say of it beside its task: parameters, number format, base, licence. Torch is not used."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import InvalidSpec
from service.gguf_header import find_gguf, read_gguf_header
from service.spec.tasks import TASKS
from service.spec.yaml_document import NotYaml, load_yaml
from service.weights import read_header

_CARD = "README.md"
_STATISTICS = ("running_mean", "running_var")
"""The ends of names of batch norm's statistics, which no training changes as weights."""
_MAX_CARD_BYTES = 2**16
_MAX_CHARACTERS = 200


@dataclass(frozen=True)
class ModelFacts:
    """Facts of one network; None for what its files do not say."""

    parameters: int | None
    dtype: str | None
    """The format of most of its weights."""
    base: str | None
    """The network that it was made of, as its card says."""
    licence: str | None


def read_facts(folder: Path, files: Sequence[Path]) -> ModelFacts:
    """Reads the facts of a folder that contains ``files``, given by their relative paths.

    Raises:
        InvalidFile: its weights are no whole safetensors files.
    """
    counts: Counter[str] = Counter()
    for file in files:
        if file.suffix == ".safetensors" and len(file.parts) == 1:
            for name, tensor in read_header(folder / file, filename=file.name).items():
                if tensor.format is not None and not name.endswith(_STATISTICS):
                    counts[tensor.format.name] += math.prod(tensor.shape)
    if (gguf := find_gguf(folder, files)) is not None:
        known = [name for info in TASKS.values() for name in info.gguf_architectures]
        header = read_gguf_header(gguf, architectures=known)
        return ModelFacts(header.parameters, dtype=None, base=None, licence=_words(header.fields.get("general.license")))
    card = _front_matter(folder / _CARD) if Path(_CARD) in files else {}
    return ModelFacts(
        parameters=counts.total() or None,
        dtype=max(counts, key=counts.__getitem__) if counts else None,
        base=_words(card.get("base_model")),
        licence=_licence(card),
    )


def read_licence(folder: Path) -> str | None:
    """The licence that the card in a folder says; None where that says nothing."""
    return _licence(_front_matter(folder / _CARD)) if (folder / _CARD).is_file() else None


def _licence(card: dict[str, Any]) -> str | None:
    licence = _words(card.get("license"))
    return _words(card.get("license_name")) or licence if licence == "other" else licence


def _front_matter(path: Path) -> dict[str, Any]:
    """The YAML at the head of a model card, as the Hub reads it; empty if there is none that can be read."""
    with path.open("rb") as file:
        text = file.read(_MAX_CARD_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    if not text.startswith("---\n") or (end := text.find("\n---", 3)) < 0:
        return {}
    try:
        matter = load_yaml(text[4 : end + 1], aliases=False)
    except (NotYaml, InvalidSpec):
        return {}
    return matter if isinstance(matter, dict) else {}


def _words(value: Any) -> str | None:
    """A string, or several with commas between, as a database can store it."""
    if isinstance(value, list):
        value = ", ".join(each for each in value if isinstance(each, str))
    return value[:_MAX_CHARACTERS] if isinstance(value, str) and value and value.isprintable() else None
