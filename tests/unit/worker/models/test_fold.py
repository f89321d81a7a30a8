"""A network that reads its own teacher head, folded into a plain one: the same answers, from fewer outputs."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from service.spec.architectures import ARCHITECTURES, SmallCnn
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import cifar, tiny
from worker.models import build_network
from worker.models.fold import fold_head

OUTPUTS, TEACHER_OUTPUTS = 3, 2
IMAGE = (3, 32, 32)
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
WAVEFORM = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
DEIT = {**ENCODER, "image_size": 32, "patch_size": 8}
LEVIT = {"image_size": 32, "depths": [1, 1, 1], "hidden_sizes": [16, 16, 16], "num_attention_heads": [1, 1, 2]}
TOKENS = torch.tensor([[5, 6, 7, 8], [9, 4, 3, 1]])
LIBRARY: dict[str, tuple[str, str, dict[str, Any], Tensor]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", {**ENCODER, "vocab_size": 20}, TOKENS),
    "gpt2": (
        "GPT2ForSequenceClassification",
        "GPT2Config",
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20, "pad_token_id": 0},
        TOKENS,
    ),
    "wav2vec2": (
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        {**ENCODER, **WAVEFORM, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8},
        torch.rand(2, 400),
    ),
    # Each averages two heads.
    "deit": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", DEIT, torch.rand(2, *IMAGE)),
    "levit": ("LevitForImageClassificationWithTeacher", "LevitConfig", LEVIT, torch.rand(2, *IMAGE)),
}


class Logits(nn.Module):
    """A model of the library as a function from one tensor to one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs).logits
        return logits


def of_the_spec(architecture: Any) -> Callable[[int], nn.Module]:
    return lambda num_outputs: build_network(architecture, kind=kind_of(architecture), input_shape=IMAGE, num_outputs=num_outputs)


def of_the_library(name: str) -> Callable[[int], nn.Module]:
    model, config, fields, _ = LIBRARY[name]
    return lambda num_outputs: Logits(
        getattr(transformers, model)(getattr(transformers, config)(**fields, num_labels=num_outputs))
    )


OWN = [SmallCnn(name="small-cnn", width=4), *(cifar(name) for name in ARCHITECTURES if name not in ("small-cnn", "transformers"))]
NETWORKS = [
    *(pytest.param(of_the_spec(spec), torch.rand(2, *IMAGE), id=spec.name) for spec in OWN),
    *(pytest.param(of_the_spec(tiny(name)), torch.rand(2, *IMAGE), id=name) for name in ("vit", "levit", "convnext", "resnet")),
    *(pytest.param(of_the_library(name), inputs, id=f"library {name}") for name, (*_, inputs) in LIBRARY.items()),
]


@pytest.mark.parametrize(("build", "inputs"), NETWORKS)
def test_the_folded_network_answers_what_the_wide_one_makes_of_its_teacher_head(
    build: Callable[[int], nn.Module], inputs: Tensor
) -> None:
    torch.manual_seed(0)
    wide, plain = build(OUTPUTS + TEACHER_OUTPUTS).eval(), build(OUTPUTS).eval()
    reader = torch.randn(OUTPUTS, TEACHER_OUTPUTS)
    for name, parameter in wide.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)  # libraries begin with zeros, which any folding gets right
    plain.load_state_dict(fold_head(wide.state_dict(), plain.state_dict(), reader=reader))

    with torch.no_grad():
        base, teacher_head = torch.split(wide(inputs), [OUTPUTS, TEACHER_OUTPUTS], dim=1)
        torch.testing.assert_close(plain(inputs), base + teacher_head @ reader.T, rtol=1e-5, atol=1e-5)


def test_what_is_no_head_is_passed_on_as_it_is() -> None:
    wide, plain = of_the_spec(OWN[0])(OUTPUTS + TEACHER_OUTPUTS).state_dict(), of_the_spec(OWN[0])(OUTPUTS).state_dict()
    folded = fold_head(wide, plain, reader=torch.ones(OUTPUTS, TEACHER_OUTPUTS))

    assert list(folded) == list(plain)
    assert {name: tensor.shape for name, tensor in folded.items()} == {name: tensor.shape for name, tensor in plain.items()}
    kept = {name for name in plain if folded[name] is wide[name]}
    assert plain.keys() - kept == {"classifier.3.weight", "classifier.3.bias"}


def head(outputs: int) -> dict[str, Tensor]:
    return {"head.weight": torch.zeros(outputs, 4), "head.bias": torch.zeros(outputs)}


@pytest.mark.parametrize(
    ("wide", "plain", "words"),
    [
        (head(4), head(3), "head.weight is (4, 4) with 5 outputs and (3, 4) with 3"),
        (head(5), {**head(3), "head.weight": torch.zeros(3, 2)}, "head.weight is (5, 4) with 5 outputs and (3, 2)"),
        ({"scale": torch.zeros(())}, {"scale": torch.zeros(3)}, "scale is () with 5 outputs"),
        (head(3), head(3), "no parameter is larger by the 2 outputs"),
        (head(5), {**head(3), "other": torch.zeros(1)}, "other is in one of the two networks only"),
        (
            {**head(5), "norm.running_mean": torch.zeros(5), "norm.weight": torch.zeros(5)},
            {**head(3), "norm.running_mean": torch.zeros(3), "norm.weight": torch.zeros(3)},
            "norm.running_mean is no weight or bias of a linear layer",
        ),
        ({"counts": torch.zeros(5, dtype=torch.int64)}, {"counts": torch.zeros(3, dtype=torch.int64)}, "counts is no weight"),
    ],
    ids=["other width", "other input", "scalar", "no head", "other network", "norm", "integers"],
)
def test_networks_that_do_not_fold_are_refused_by_the_parameter(
    wide: dict[str, Tensor], plain: dict[str, Tensor], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        fold_head(wide, plain, reader=torch.zeros(3, 2))
