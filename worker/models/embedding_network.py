"""A text encoder of ``transformers`` as a plain module from texts to their embeddings. B batch, L tokens, D width.

Invariant: how tokens become one vector is written beside the weights as sentence-transformers does, ``1_Pooling/config.json``.
"""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from worker.models.errors import UnreadableNetwork

Pooling = Literal["mean", "cls"]
POOLING_FILE = Path("1_Pooling") / "config.json"
_MODES = {f"pooling_mode_{name}": mode for name, mode in (("mean_tokens", "mean"), ("cls_token", "cls"))}


class EmbeddingNetwork(nn.Module):
    """Wraps ``model``, which stays what the library made: its ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any, *, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    @property
    def width(self) -> int:
        """D."""
        config = self.model.config
        return int(getattr(config, "hidden_size", None) or config.dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, L), padded at the end, to embeddings (B, D): the mean of the tokens, or the first one."""
        mask = ids != self.model.config.pad_token_id
        states: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        counted = mask.unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        return mean


def write_pooling(folder: Path, network: EmbeddingNetwork) -> None:
    """Writes how the tokens are pooled, and the list of modules by which sentence-transformers loads the folder."""
    document: dict[str, Any] = {"word_embedding_dimension": network.width}
    document |= {name: mode == network.pooling for name, mode in _MODES.items()}
    (folder / POOLING_FILE).parent.mkdir(exist_ok=True)
    (folder / POOLING_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate((("", "Transformer"), (POOLING_FILE.parent.name, "Pooling")))
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def read_pooling(folder: Path) -> Pooling:
    """How a folder's tokens are pooled; the mean where it does not say.

    Raises:
        UnreadableNetwork: in another way than those two.
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
