"""A student that begins with some of its teacher's layers: which, and what else it takes."""

from typing import Any

import pytest
import torch
from torch import nn

from service.spec.architectures import SmallCnn, TransformersNetwork
from service.spec.shapes import InputShape, TokenShape
from tests.unit.worker.models.kinds import kind_of
from worker.models import build_network
from worker.models.hidden_layers import find_hidden_layers
from worker.models.privileged import PrivilegedNetwork
from worker.models.teacher_layers import UnfitStart, take_teacher_layers
from worker.targets import Targets

TOKENS = TokenShape(40, 12, pad=0, start=1, end=2)
SIZES = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}
WAVEFORM = {"conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_conv_pos_embedding_groups": 2}
NETWORKS: dict[str, tuple[InputShape, dict[str, Any], str]] = {
    "bert": (TOKENS, SIZES, "num_hidden_layers"),
    "distilbert": (TOKENS, {"dim": 8, "n_heads": 2, "hidden_dim": 12}, "n_layers"),
    "gpt2": (TOKENS, {"n_embd": 8, "n_head": 2}, "n_layer"),
    "llama": (TOKENS, SIZES, "num_hidden_layers"),
    "vit": ((1, 8, 8), SIZES | {"patch_size": 4}, "num_hidden_layers"),
    "wav2vec2": ((2000,), SIZES | WAVEFORM | {"num_conv_pos_embeddings": 4}, "num_hidden_layers"),
    "audio-spectrogram-transformer": ((1, 32, 16), SIZES | {"patch_size": 4}, "num_hidden_layers"),
}


def build(model_type: str, depth: int, *, seed: int, num_outputs: int = 3, **config: Any) -> nn.Module:
    input_shape, sizes, name = NETWORKS[model_type]
    torch.manual_seed(seed)
    architecture = TransformersNetwork(name="transformers", model_type=model_type, config=sizes | {name: depth} | config)
    return build_network(architecture, kind=kind_of(architecture), input_shape=input_shape, num_outputs=num_outputs)


def layers(network: Any) -> nn.ModuleList:
    found = find_hidden_layers(network.model)
    assert found is not None
    return found[1]


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("model_type", NETWORKS)
def test_every_second_layer_and_all_around_them_are_the_teachers(model_type: str) -> None:
    teacher, student = build(model_type, 4, seed=0), build(model_type, 2, seed=1)
    assert take_teacher_layers(student, teacher) == [0, 2]
    assert [same(ours, layers(teacher)[index]) for ours, index in zip(layers(student), (0, 2), strict=True)] == [True, True]
    outside = {
        name: tensor
        for name, tensor in teacher.state_dict().items()
        if name in student.state_dict() and not any(f".{index}." in name for index in range(4))
    }
    assert outside
    assert all(torch.equal(student.state_dict()[name], tensor) for name, tensor in outside.items())


def test_as_deep_as_its_teacher_a_student_begins_as_its_teacher_is() -> None:
    teacher, student = build("bert", 2, seed=0), build("bert", 2, seed=1)
    take_teacher_layers(student, teacher)
    tokens = torch.randint(1, 40, (2, 12))
    assert torch.equal(student.eval()(tokens), teacher.eval()(tokens))


def test_the_layers_that_are_named_are_taken_in_that_order() -> None:
    teacher, student = build("bert", 4, seed=0), build("bert", 2, seed=1)
    assert take_teacher_layers(student, teacher, [3, 1]) == [3, 1]
    assert same(layers(student)[0], layers(teacher)[3])


def test_a_head_of_another_width_stays_as_it_was_initialised() -> None:
    targets = Targets.of_classes(["a", "b", "c"])
    teacher, body = build("bert", 4, seed=0), build("bert", 2, seed=1, num_outputs=6)
    before = body.get_parameter("model.classifier.weight").clone()
    take_teacher_layers(PrivilegedNetwork(body, targets, extra_input=True), teacher)
    assert same(layers(body)[1], layers(teacher)[2])
    assert torch.equal(body.get_parameter("model.classifier.weight"), before)


@pytest.mark.parametrize(
    ("student", "chosen", "words"),
    [
        (("bert", 2, {"intermediate_size": 16}), None, r"is \(16, 8\), the teacher's bert.encoder.layer.0.*\(12, 8\)"),
        (("gpt2", 2, {}), None, "nothing of that name: give the student its teacher's model_type"),
        (("bert", 6, {}), None, "6 layers and the teacher 4"),
        (("bert", 2, {}), [0], "1 layers are named and the student has 2"),
        (("bert", 2, {}), [0, 4], "4 layers, 0 to 3, and no layer 4"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    student: tuple[str, int, dict[str, Any]], chosen: list[int] | None, words: str
) -> None:
    model_type, depth, config = student
    network, untouched = (build(model_type, depth, seed=1, **config) for _ in range(2))
    with pytest.raises(UnfitStart, match=words):
        take_teacher_layers(network, build("bert", 4, seed=0), chosen)
    assert same(network, untouched)


def test_a_network_without_a_list_of_layers_is_refused() -> None:
    cnn = build_network(SmallCnn(name="small-cnn", width=4), input_shape=(1, 8, 8), num_outputs=3)
    with pytest.raises(UnfitStart, match="the student has no list of layers"):
        take_teacher_layers(cnn, build("vit", 2, seed=0))
