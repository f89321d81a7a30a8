"""A causal language model of ``transformers`` as a plain module. B batch, L tokens, D hidden width, V vocabulary.

Invariant: its logits are its output head's of its hidden states, neither scaled nor capped, so that losses may be taken on hidden
states a few tokens at a time. Only model types of which that holds are built and loaded.
"""

from typing import Any

from torch import Tensor, nn

from worker.methods.output_head import OutputHead


class LanguageNetwork(nn.Module):
    """Wraps ``model``, which stays what the library made: its ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of tokens (B, L) to the logits (B, V) of the token that follows each: what it takes to write one."""
        return self.head(self.hidden(ids)[:, -1])

    def hidden(self, ids: Tensor) -> Tensor:
        """Rows of tokens (B, L), padded at their end alone, to hidden states (B, L, D): each predicts the next token."""
        states: Tensor = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states

    @property
    def head(self) -> OutputHead:
        """From hidden states to logits; its weight may be the embedding's as well."""
        linear = self.model.get_output_embeddings()
        return OutputHead(linear.weight, linear.bias)
