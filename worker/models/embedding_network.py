"""A text encoder of ``transformers`` as a plain module from texts to their embeddings. B batch, L tokens, D width.

Invariant: an embedding is that of the text alone, whatever stands beside it in a batch.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from worker.models.pooling import PoolingMode, pool
from worker.models.token_inputs import token_inputs


class EmbeddingNetwork(nn.Module):
    """Wraps an unchanged ``model`` of the library, whose ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any, *, pad: int, has_token_types: bool = False) -> None:
        super().__init__()
        self.model, self.pad, self.has_token_types = model, pad, has_token_types
        self.pooling: tuple[PoolingMode, ...] = ("mean",)
        self.has_unit_length = False
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # belongs to a classifier and is often saved without weights; an embedding does not use it

    def extra_repr(self) -> str:
        """The settings that are not in the weights; they distinguish two networks in the key of cached outputs."""
        return f"pooling={'+'.join(self.pooling)}, has_unit_length={self.has_unit_length}, has_token_types={self.has_token_types}"

    @property
    def token_width(self) -> int:
        """Width of a token's state."""
        config = self.model.config
        return int(getattr(config, "hidden_size", None) or config.dim)

    @property
    def width(self) -> int:
        """Embedding width D."""
        return self.token_width * len(self.pooling)

    def forward(self, ids: Tensor) -> Tensor:
        """Maps token ids (B, L) to embeddings (B, D)."""
        inputs = token_inputs(self.model, ids, pad=self.pad, has_token_types=self.has_token_types)
        states: Tensor = self.model(**inputs).last_hidden_state
        embeddings = pool(states, inputs["attention_mask"].bool(), self.pooling)
        return functional.normalize(embeddings, dim=1) if self.has_unit_length else embeddings
