"""Causal language models of ``transformers`` and their folders."""

from pathlib import Path
from typing import Any

from torch import nn

from service.spec.shapes import InputShape, TokenShape
from worker.data.preprocessing import Preprocessing
from worker.models.language_network import LanguageNetwork
from worker.models.network_kind import LoadedNetwork, NetworkKind, token_fields
from worker.models.text_files import read_language_preprocessing
from worker.models.without_progress import no_progress_bars
from worker.targets import Targets


class LanguageModels(NetworkKind):
    """Networks from rows of tokens (B, L) to the logits (B, V) of the next one, in their own vocabulary."""

    def config_fields(self, model_type: str, input_shape: InputShape, *, num_outputs: int) -> dict[str, Any]:
        fields = token_fields(input_shape)
        if isinstance(input_shape, TokenShape) and input_shape.pad == input_shape.end:
            fields["pad_token_id"] = None  # its embedding is never trained, but that of an end token must be
        return fields

    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        return LanguageNetwork(model)

    def output_shape(self, network: nn.Module, input_shape: InputShape, *, num_outputs: int) -> tuple[int, ...]:
        return (input_shape.vocabulary,) if isinstance(input_shape, TokenShape) else (num_outputs,)

    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> LoadedNetwork:
        reads = read_language_preprocessing(folder, model.config)
        return LoadedNetwork(LanguageNetwork(model), reads, Targets(()), reads.input_shape([]), self)

    def write(self, network: Any, folder: Path, *, preprocessing: Preprocessing, targets: Targets) -> None:
        with no_progress_bars():
            network.model.save_pretrained(folder)
