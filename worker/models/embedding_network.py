"""A text encoder of ``transformers`` as a plain module from texts to their embeddings. B batch, L tokens, D width.

Invariant: the pooling of tokens is saved beside the weights in sentence-transformers' form, ``1_Pooling/config.json``.
"""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from worker.models.errors import UnreadableNetwork

Pooling = Literal["mean", "cls"]
POOLING_FILE = Path("1_Pooling") / "config.json"
MODULES_FILE = "modules.json"
_MODES = {f"pooling_mode_{name}": mode for name, mode in (("mean_tokens", "mean"), ("cls_token", "cls"))}


class EmbeddingNetwork(nn.Module):
    """Wraps an unchanged ``model`` of the library, whose ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any, *, pooling: Pooling = "mean", has_unit_length: bool = False) -> None:
        super().__init__()
        self.model, self.pooling, self.has_unit_length = model, pooling, has_unit_length
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # belongs to a classifier and is often saved without weights; an embedding does not use it

    def extra_repr(self) -> str:
        """The settings that are not in the weights; they distinguish two networks in the key of cached outputs."""
        return f"pooling={self.pooling}, has_unit_length={self.has_unit_length}"

    @property
    def width(self) -> int:
        """Embedding width D."""
        config = self.model.config
        return int(getattr(config, "hidden_size", None) or config.dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Maps token ids (B, L), padded at the end, to embeddings (B, D): the mean over tokens, or the first token's state."""
        mask = ids != self.model.config.pad_token_id
        states: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        counted = mask.unsqueeze(-1).to(states.dtype)
        embeddings = states[:, 0]
        if self.pooling == "mean":
            embeddings = (states * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        return functional.normalize(embeddings, dim=1) if self.has_unit_length else embeddings


def write_pooling(folder: Path, network: EmbeddingNetwork) -> None:
    """Writes the pooling, and the list of modules by which sentence-transformers loads the folder."""
    document: dict[str, Any] = {"word_embedding_dimension": network.width}
    document |= {name: mode == network.pooling for name, mode in _MODES.items()}
    (folder / POOLING_FILE).parent.mkdir(exist_ok=True)
    (folder / POOLING_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    kinds = [("", "Transformer"), (POOLING_FILE.parent.name, "Pooling")]
    kinds += [("2_Normalize", "Normalize")] if network.has_unit_length else []
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (folder / MODULES_FILE).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def has_unit_length(folder: Path) -> bool:
    """Whether a folder's list of modules has one that normalises embeddings to unit length.

    Raises:
        UnreadableNetwork: the list cannot be read, or has modules beside encoder, pooling and normalisation.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return False
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableNetwork(f"{MODULES_FILE} cannot be read: {error}") from error
    if others := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise UnreadableNetwork(f"{MODULES_FILE} has {', '.join(others)}: an encoder with its pooling alone can be loaded")
    return "Normalize" in kinds


def read_pooling(folder: Path) -> Pooling:
    """Reads a folder's pooling; the mean if the folder has no file of it.

    Raises:
        UnreadableNetwork: the file cannot be read, or names another pooling.
    """
    path = folder / POOLING_FILE
    if not path.is_file():
        return "mean"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        chosen = [name for name, is_on in document.items() if name.startswith("pooling_mode_") and is_on is True]
    except (OSError, ValueError, AttributeError) as error:
        raise UnreadableNetwork(f"{POOLING_FILE} cannot be read: {error}") from error
    modes = [_MODES.get(name) for name in chosen]
    for mode in get_args(Pooling):
        if modes == [mode]:
            pooling: Pooling = mode
            return pooling
    raise UnreadableNetwork(f"{POOLING_FILE} pools by {', '.join(chosen) or 'nothing'}; pooling is by {' or '.join(_MODES)}")
