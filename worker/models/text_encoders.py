"""Text encoders of ``transformers``, which sentence-transformers loads too, and their folders."""

from pathlib import Path
from typing import Any, cast

from torch import nn

from service.spec.shapes import InputShape
from worker.data.preprocessing import Preprocessing
from worker.data.text.texts import TextPreprocessing
from worker.models.embedding_network import EmbeddingNetwork
from worker.models.encoder_files import read_encoder_files, write_encoder_files
from worker.models.network_kind import LoadedNetwork, NetworkKind, token_fields
from worker.models.text_files import has_token_types, read_encoder_preprocessing
from worker.models.without_progress import no_progress_bars
from worker.targets import Targets


class TextEncoders(NetworkKind):
    """Networks from token ids (B, L) to embeddings (B, D), whose width is their own."""

    def config_fields(self, model_type: str, input_shape: InputShape, *, num_outputs: int) -> dict[str, Any]:
        return token_fields(input_shape)

    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        return EmbeddingNetwork(model, pad=model.config.pad_token_id)

    def output_shape(self, network: nn.Module, input_shape: InputShape, *, num_outputs: int) -> tuple[int, ...]:
        width: Any = network.width
        return (int(width),)

    def is_needed(self, weight: str) -> bool:
        return not weight.startswith("pooler.")  # of a classifier; embeddings do not use it

    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> LoadedNetwork:
        files = read_encoder_files(folder)
        reads = read_encoder_preprocessing(folder, model.config, files)
        has_types = has_token_types(reads.tokenizer, model.config.model_type)
        network = EmbeddingNetwork(model, pad=model.config.pad_token_id, has_token_types=has_types)
        network.pooling, network.has_unit_length = files.pooling, files.has_unit_length
        return LoadedNetwork(network, reads, Targets(()), reads.input_shape([]), self)

    def write(self, network: Any, folder: Path, *, preprocessing: Preprocessing, targets: Targets) -> None:
        with no_progress_bars():
            network.model.save_pretrained(folder)
        write_encoder_files(folder, network, prompt=cast(TextPreprocessing, preprocessing).prompt)
