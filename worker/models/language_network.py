"""A causal language model of ``transformers`` as a plain module. B batch, L tokens, D hidden width, V vocabulary.

Invariant: the logits are the output head applied to the hidden states, neither scaled nor capped, so that losses can be computed
from hidden states in chunks of tokens. Only model types for which that holds are built and loaded.
"""

from typing import Any

from torch import Tensor, nn

from service.spec.language_fit import NOT_ISOLATED
from worker.data.tensors import Inputs
from worker.data.text.language import ids_and_positions
from worker.errors import JobFault
from worker.methods.output_head import OutputHead


class LanguageNetwork(nn.Module):
    """Wraps an unchanged ``model`` of the library, whose ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Inputs) -> Tensor:
        """Maps rows of tokens (B, L) to the logits (B, V) of the next token, for generation."""
        return self.head(self.hidden(*ids_and_positions(inputs))[:, -1])

    def hidden(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Maps rows of tokens (B, L), padded at the end alone, to hidden states (B, L, D); each predicts the next token.

        With ``positions`` (B, L), which begin again at 0 with each text of a row, no text attends to another: so reads the
        library a forward pass without an attention mask.

        Raises:
            JobFault: the network does not tell texts by their positions.
        """
        if positions is None:
            states: Tensor = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return states
        if self.model.config.model_type in NOT_ISOLATED:
            raise JobFault(
                "invalid_spec",
                f"A network of {self.model.config.model_type} does not keep the texts of a row from attending to each other.",
                hint="Set dataset.packing to padded.",
                details={"pointer": "/dataset/packing"},
            )
        states = self.model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        return states

    @property
    def head(self) -> OutputHead:
        """Linear map from hidden states to logits; its weight may be tied to the embedding."""
        linear = self.model.get_output_embeddings()
        return OutputHead(linear.weight, linear.bias)
