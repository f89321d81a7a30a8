"""Encoders that go through sentence-transformers and come back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from tests.truth.text_networks import TEXT_SWITCHES, save_network, texts_of
from worker.data.text.texts import TextPreprocessing
from worker.models import save_network as save_again
from worker.models.embedding_network import EmbeddingNetwork
from worker.targets import Targets
from worker.tasks import load_network

DEFAULTS = {name: values[0] for name, values in TEXT_SWITCHES.items()}


@pytest.mark.parametrize("pooling", [("mean",), ("cls",), ("mean", "lasttoken")])
def test_an_encoder_of_ours_saved_again_by_sentence_transformers_is_the_same(tmp_path: Path, pooling: Any) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="it is installed with the extra dev")
    save_network(AutoModel, "bert", DEFAULTS, tmp_path / "given")
    ours = load_network(tmp_path / "given")
    assert isinstance(ours.network, EmbeddingNetwork)
    assert isinstance(ours.preprocessing, TextPreprocessing)
    ours.network.pooling, ours.network.has_unit_length = pooling, True
    reads = replace(ours.preprocessing, prompt="eta ")
    save_again(ours.network, tmp_path / "ours", preprocessing=reads, targets=Targets(()))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu", local_files_only=True)
    texts = texts_of("odd")
    expected = theirs.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    theirs.save(str(tmp_path / "again"))
    again = load_network(tmp_path / "again")
    for reader, network in ((reads, ours.network), (again.preprocessing, again.network)):
        with torch.no_grad():
            torch.testing.assert_close(network(reader.prepare(texts)), expected, atol=1e-5, rtol=1e-4)
