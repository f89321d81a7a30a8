"""Token classifiers of ``transformers`` as networks with outputs for each word, and their folders.

B batch, L pieces, K words of the longest row, W outputs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.spec.shapes import InputShape
from worker.data.text.words import at_first_pieces
from worker.models.classifiers import TextClassifiers
from worker.models.hidden_layers import find_hidden_layers
from worker.models.network_kind import LoadedNetwork, blank
from worker.models.text_files import has_token_types, read_word_preprocessing
from worker.models.token_inputs import token_inputs
from worker.targets import Targets


class WordNetwork(nn.Module):
    """Wraps an unchanged ``model`` of the library, whose ``save_pretrained`` writes the exported folder."""

    def __init__(self, model: Any, *, pad: int, has_token_types: bool = False) -> None:
        super().__init__()
        self.model, self.pad, self.has_token_types = model, pad, has_token_types
        found = find_hidden_layers(model)
        path, layers = found if found is not None else ("", ())
        self.stage_layers = tuple(f"{path}.{index}" for index in range(len(layers)))
        self.embedding_layers = self.stage_layers[-1:]

    def extra_repr(self) -> str:
        """The setting that is in neither weights nor config; it distinguishes two networks in the key of cached outputs."""
        return f"has_token_types={self.has_token_types}"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps ids (B, L) and the places of first pieces (B, K) to outputs (B, K, W), of no meaning where there is no word."""
        named = token_inputs(self.model, inputs["ids"], pad=self.pad, has_token_types=self.has_token_types)
        return at_first_pieces(self.model(**named).logits, inputs["first_pieces"])


class TokenClassifiers(TextClassifiers):
    """Networks with one output for each class of a word."""

    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        return WordNetwork(model, pad=model.config.pad_token_id)

    def blank(self, input_shape: InputShape, count: int) -> Mapping[str, Tensor]:
        """Makes rows of one word."""
        ids = blank(input_shape, count)
        return {"ids": ids, "first_pieces": torch.zeros(count, 1, dtype=torch.int64)}

    def output_shape(self, network: nn.Module, input_shape: InputShape, *, num_outputs: int) -> tuple[int, ...]:
        return (1, num_outputs)

    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> LoadedNetwork:
        reads = read_word_preprocessing(folder, model.config)
        has_types = has_token_types(reads.tokenizer, model.config.model_type)
        network = WordNetwork(model, pad=model.config.pad_token_id, has_token_types=has_types)
        return LoadedNetwork(network, reads, targets or self._targets(folder, model.config), reads.input_shape([]), self)
