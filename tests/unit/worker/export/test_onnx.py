"""Networks as ONNX files: the same outputs for any batch, nothing changed, and what is told where it cannot be done."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from service.spec.architectures import SmallCnn
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import cifar, tiny
from worker.data.samples import Samples
from worker.evaluation.evaluate import predict
from worker.export.onnx import OnnxNetwork, UnexportableNetwork, check_onnx, export_onnx
from worker.models import build_network

IMAGE = (3, 16, 16)
PAD = 0
NUM_TOKENS = 30
ROUNDING = 1e-6


class TextNetwork(nn.Module):
    """A sequence classifier that tells the padding by itself."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, attention_mask=(ids != PAD).long()).logits
        return logits


class AudioNetwork(nn.Module):
    """A classifier of waveforms."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms: Tensor) -> Tensor:
        logits: Tensor = self.model(waveforms).logits
        return logits


class Remembering(nn.Module):
    """Keeps what it computes at the first forward, as some libraries' networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 2))
        self.kept: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "doubled" not in self.kept:
            self.kept["doubled"] = 2 * self.weight
        return x @ self.kept["doubled"]


class Deciding(nn.Module):
    """Does one thing or another by what it is given, which no graph can."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class FixedLength(nn.Module):
    """Reads six tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions


def image_network(architecture: Any) -> Callable[[], nn.Module]:
    return lambda: build_network(architecture, kind=kind_of(architecture), input_shape=IMAGE, num_outputs=3)


def bert() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return TextNetwork(BertForSequenceClassification(BertConfig(**sizes, vocab_size=NUM_TOKENS, num_labels=3)))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2}
    ends = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 1}
    return TextNetwork(GPT2ForSequenceClassification(GPT2Config(**sizes, **ends, vocab_size=NUM_TOKENS, num_labels=3)))


def wav2vec2() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    layers = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = Wav2Vec2Config(**sizes, **layers, **positions, classifier_proj_size=8, num_labels=3)
    return AudioNetwork(Wav2Vec2ForSequenceClassification(config))


def images(count: int) -> Tensor:
    return torch.rand(count, *IMAGE, generator=torch.Generator().manual_seed(0))


def token_ids(count: int, *, length: int) -> Tensor:
    """Rows of different lengths, padded at the end."""
    ids = torch.randint(1, NUM_TOKENS, (count, length), generator=torch.Generator().manual_seed(length))
    return ids.masked_fill(torch.arange(length) > torch.arange(1, count + 1)[:, None], PAD)


def waveforms(count: int, *, length: int) -> Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(length))


IMAGE_NETWORKS = [SmallCnn(name="small-cnn", width=4), cifar("resnet8x4"), tiny("vit")]
SEQUENCES = [
    pytest.param(bert, "input_ids", [token_ids(5, length=length) for length in (8, 3, 20)], id="bert"),
    pytest.param(gpt2, "input_ids", [token_ids(5, length=length) for length in (8, 3, 20)], id="gpt2"),
    pytest.param(wav2vec2, "input_values", [waveforms(5, length=length) for length in (200, 150, 501)], id="wav2vec2"),
]


@pytest.fixture(scope="module")
def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    network = image_network(IMAGE_NETWORKS[0])()
    network(images(8))  # moves the statistics of batch norm
    return network


@pytest.fixture(scope="module")
def exported(small_cnn: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_onnx(small_cnn, path, example=images(2), input_names=["pixel_values"], output_name="logits")
    return path


@pytest.mark.parametrize("architecture", IMAGE_NETWORKS[1:], ids=lambda architecture: architecture.name)
def test_an_image_network_gives_the_same_logits_from_its_file(architecture: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = image_network(architecture)()
    export_onnx(network, tmp_path / "a.onnx", example=images(1), input_names=["pixel_values"], output_name="logits")
    assert check_onnx(tmp_path / "a.onnx", network, images(7)) < ROUNDING


@pytest.mark.parametrize(("build", "input_name", "batches"), SEQUENCES)
def test_a_network_of_sequences_gives_the_same_logits_at_any_length(
    build: Callable[[], nn.Module], input_name: str, batches: list[Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = build()
    path = tmp_path / "a.onnx"
    export_onnx(network, path, example=batches[0][:2], input_names=[input_name], output_name="logits", dynamic_length=True)
    assert [check_onnx(path, network, batch) < ROUNDING for batch in batches] == [True] * len(batches)


def test_the_file_names_its_input_and_output_and_the_dimension_that_is_free(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("pixel_values", ["batch", *IMAGE], "tensor(float)")
    assert (made.name, made.shape, made.type) == ("logits", ["batch", 3], "tensor(float)")


def test_the_file_is_alone_tells_nothing_of_its_machine_and_is_the_same_again(
    small_cnn: nn.Module, exported: Path, tmp_path: Path
) -> None:
    export_onnx(small_cnn, tmp_path / "b.onnx", example=images(2), input_names=["pixel_values"], output_name="logits")
    content = exported.read_bytes()
    assert list(exported.parent.iterdir()) == [exported]
    assert b".py" not in content
    assert (tmp_path / "b.onnx").read_bytes() == content


def test_exporting_and_checking_change_and_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = image_network(IMAGE_NETWORKS[0])()
    calls: list[bool] = []
    network.register_forward_hook(lambda *_: calls.append(True))
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator, threads = torch.random.get_rng_state(), set(threading.enumerate())

    export_onnx(network, tmp_path / "a.onnx", example=images(2), input_names=["x"], output_name="y")
    check_onnx(tmp_path / "a.onnx", network, images(3))

    assert network.training
    assert len(network._forward_hooks) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert set(threading.enumerate()) == threads
    assert logging.getLogger("torch.onnx").level == logging.NOTSET
    assert capfd.readouterr() == ("", "")
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_a_network_keeps_of_its_first_forward_is_in_the_file(tmp_path: Path) -> None:
    network = Remembering()
    export_onnx(network, tmp_path / "a.onnx", example=torch.rand(2, 4), input_names=["x"], output_name="y")
    assert check_onnx(tmp_path / "a.onnx", network, torch.rand(3, 4)) < ROUNDING
    assert network.kept == {}


def test_a_file_is_measured_like_a_network(small_cnn: nn.Module, exported: Path) -> None:
    samples = Samples(images(300), torch.zeros(300, dtype=torch.int64), None, torch.device("cpu"))
    torch.testing.assert_close(predict(OnnxNetwork(exported), samples), predict(small_cnn, samples), rtol=1e-5, atol=1e-5)


def test_another_networks_file_is_told_by_its_outputs(exported: Path) -> None:
    torch.manual_seed(1)
    other = image_network(IMAGE_NETWORKS[0])()
    assert check_onnx(exported, other, images(4)) > 1e-2
    nn.init.constant_(next(other.parameters()), float("nan"))
    assert check_onnx(exported, other, images(4)) == float("inf")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Deciding(), r"Deciding cannot be written as ONNX: GuardOnDataDependentSymNode: Could not guard on data-dependent"),
        (FixedLength(), r"FixedLength cannot be written as ONNX: ValueError: .*: - .* tracing inferred a static shape of 6 for"),
        (
            nn.Linear(30_000, 30_000, device="meta"),
            r"Linear has 3,600,120,000 bytes of weights, and an ONNX file takes 1,610,612,736",
        ),
    ],
    ids=["control flow", "fixed length", "too large"],
)
def test_a_network_that_cannot_be_exported_is_refused_with_the_exporters_reason(
    network: nn.Module, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UnexportableNetwork, match=words):
        export_onnx(
            network, tmp_path / "a.onnx", example=torch.rand(2, 6), input_names=["x"], output_name="y", dynamic_length=True
        )
    assert list(tmp_path.iterdir()) == []
