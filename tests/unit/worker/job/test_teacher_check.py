"""A teacher's score on some of validation."""

import torch

from service.spec.architectures import TransformersNetwork
from worker.data import Data, Split
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.tokenization import train_tokenizer
from worker.job.teacher_check import compare_some
from worker.models import build_network
from worker.targets import Targets
from worker.tasks import TASKS
from worker.trained import TrainedNetwork

TOKENS = Targets(())


def texts(count: int) -> Split:
    return Split(["one two"] * count, torch.empty(count, 0), part="validation", is_packed=True)


def test_texts_too_short_to_fill_a_row_are_put_together_until_they_do() -> None:
    reads = LanguagePreprocessing(train_tokenizer(["one two"], "bpe", 300), 512)
    shape = reads.input_shape([])
    architecture = TransformersNetwork(
        name="transformers", model_type="gpt2", config={"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 512}
    )
    network = build_network(architecture, kind=TASKS["causal-lm"].network, input_shape=shape, num_outputs=0).eval()
    teacher = TrainedNetwork(network, torch.device("cpu"), reads, "causal-lm", source="job:x", architecture=None)
    data = Data("causal-lm", {"train": texts(300), "validation": texts(300)}, TOKENS)
    (compared,) = compare_some(teacher, data, is_over=lambda: False) or []
    assert compared.rows >= 511
    assert compare_some(teacher, data, is_over=lambda: True) is None
