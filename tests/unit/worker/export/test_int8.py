"""ONNX files in 8-bit integers: smaller, close to what they were made from, and made without a trace beside them."""

import logging
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from service.spec.architectures import SmallCnn
from tests.unit.worker.export.test_onnx import NUM_TOKENS, TextNetwork, image_network, images, token_ids
from worker.export.int8 import quantize_int8
from worker.export.onnx import check_onnx, export_onnx


def small_cnn() -> nn.Module:
    network = image_network(SmallCnn(name="small-cnn", width=32))()
    network(images(64))  # moves the statistics of batch norm
    return network


def bert() -> nn.Module:
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 256}
    return TextNetwork(BertForSequenceClassification(BertConfig(**sizes, vocab_size=NUM_TOKENS, num_labels=3)))


@pytest.mark.parametrize(
    ("build", "inputs", "computed"),
    [
        pytest.param(small_cnn, images(64), {"QuantizeLinear", "MatMulInteger"}, id="convolutions"),
        pytest.param(bert, token_ids(64, length=12), {"DynamicQuantizeLinear", "MatMulInteger"}, id="attention"),
    ],
)
def test_a_quantised_file_is_smaller_and_answers_nearly_the_same(
    build: Callable[[], nn.Module], inputs: Tensor, computed: set[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = build()
    path, target = tmp_path / "student.onnx", tmp_path / "student.int8.onnx"
    export_onnx(network, path, example=inputs[:2], input_names=["x"], output_name="logits", dynamic_length=inputs.dim() == 2)
    root = logging.getLogger()
    handlers, filters = list(root.handlers), list(root.filters)

    quantize_int8(path, target, calibration=inputs[:48])

    assert target.stat().st_size < 0.5 * path.stat().st_size
    assert check_onnx(target, network, inputs[48:]) < 0.03
    assert computed <= {node.op_type for node in onnx.load(target).graph.node}
    assert sorted(tmp_path.iterdir()) == [target, path]
    assert (root.handlers, root.filters) == (handlers, filters)
    assert capfd.readouterr() == ("", "")
