"""Adapters of every kind of layer: they go where the spec says, merge into what they were, and are read by ``peft`` itself."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.spec.adapters import Lora
from service.spec.architectures import SmallCnn, TransformersNetwork
from service.spec.shapes import InputShape, TokenShape
from worker.data.tensors import Inputs
from worker.models import build_network
from worker.models.adapters import (
    UnfitAdapter,
    adapter_of,
    attach,
    merged,
    read_adapter,
    share_weights,
    target_paths,
    write_adapter,
)
from worker.tasks import TASKS

TOKENS = TokenShape(40, 12, pad=0, start=1, end=2)
IMAGES, WAVEFORMS = (3, 16, 16), (400,)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SOUND = {"conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_conv_pos_embeddings": 4}
NETWORKS: dict[str, tuple[Any, InputShape, dict[str, Any]]] = {
    "llama": ("causal-lm", TOKENS, SIZES | {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "gpt2": ("causal-lm", TOKENS, {"n_embd": 32, "n_head": 2, "n_layer": 2}),
    "bert": ("text-classification", TOKENS, SIZES),
    "vit": ("image-classification", IMAGES, SIZES | {"patch_size": 4}),
    "resnet": ("image-classification", IMAGES, {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}),
    "wav2vec2": ("audio-classification", WAVEFORMS, SIZES | SOUND | {"num_conv_pos_embedding_groups": 2}),
}
VARIANTS = ("lora", "dora", "rslora")
IN_LAYERS = {"llama": 7, "gpt2": 4, "bert": 6, "vit": 6, "wav2vec2": 6}
"""Linear layers of a hidden layer."""


def build(name: str, seed: int = 0) -> nn.Module:
    """A network in ``eval()``, whose norms and biases are no longer those of a new one."""
    torch.manual_seed(seed)
    if name == "small-cnn":
        network = build_network(SmallCnn(name="small-cnn", width=4), input_shape=IMAGES, num_outputs=3)
    else:
        task, shape, config = NETWORKS[name]
        architecture = TransformersNetwork(name="transformers", model_type=name, config=config)
        network = build_network(architecture, kind=TASKS[task].network, input_shape=shape, num_outputs=3)
    perturb(network, by=0.2)
    return network.eval()


def samples(name: str) -> Inputs:
    shape = IMAGES if name == "small-cnn" else NETWORKS[name][1]
    if isinstance(shape, TokenShape):
        return torch.randint(3, shape.vocabulary, (4, shape.length), generator=torch.Generator().manual_seed(0))
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


def perturb(network: nn.Module, *, by: float) -> None:
    """As training would: an update begins as none, since one of its two factors is zero."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=by)


def adapted(name: str, seed: int = 0, **fields: Any) -> nn.Module:
    network = build(name)
    torch.manual_seed(seed)
    attach(network, Lora(name="lora", rank=4, **fields))
    perturb(network, by=0.1)
    return network.eval()


@torch.no_grad()
def outputs(network: nn.Module, name: str) -> Tensor:
    computed: Tensor = network(samples(name))
    return computed


def targets_of(network: nn.Module) -> tuple[str, ...]:
    adapter = adapter_of(network)
    assert adapter is not None
    return adapter.targets


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [*NETWORKS, "small-cnn"])
def test_the_merged_network_computes_what_the_adapted_one_does(name: str, variant: str) -> None:
    network = adapted(name, variant=variant)
    before = outputs(network, name)
    assert not torch.allclose(before, outputs(build(name), name), atol=1e-2)
    plain = merged(network)
    torch.testing.assert_close(outputs(plain, name), before, atol=1e-5, rtol=1e-5)
    assert plain.state_dict().keys() == build(name).state_dict().keys()
    assert torch.equal(outputs(network, name), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_bf16_the_two_differ_by_rounding_alone(variant: str) -> None:
    network = adapted("llama", variant=variant).to(torch.bfloat16)
    before, after = outputs(network, "llama").float(), outputs(merged(network), "llama").float()
    assert float((before - after).abs().max()) <= 2**-5 * float(before.abs().max())


@pytest.mark.parametrize(
    ("name", "variant"), [("llama", "lora"), ("gpt2", "dora"), ("vit", "rslora"), ("resnet", "dora"), ("small-cnn", "lora")]
)
def test_peft_reads_what_was_written(name: str, variant: str, tmp_path: Path) -> None:
    network = adapted(name, variant=variant)
    write_adapter(network, tmp_path, base="org/base", revision=None)
    again = build(name)
    read_adapter(again, tmp_path)
    torch.testing.assert_close(outputs(again.eval(), name), outputs(network, name), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", IN_LAYERS)
def test_by_itself_an_adapter_takes_the_linear_layers_of_the_body(name: str) -> None:
    paths = target_paths(build(name), "auto")
    assert len(paths) == 2 * IN_LAYERS[name]
    assert not any("head" in path or "classifier" in path or "score" in path for path in paths)


@pytest.mark.parametrize("name", ["resnet", "small-cnn"])
def test_by_itself_an_adapter_of_a_convolutional_network_takes_its_convolutions(name: str) -> None:
    network = build(name)
    model = getattr(network, "model", network)
    assert all(isinstance(model.get_submodule(path), nn.Conv2d) for path in target_paths(network, "auto"))


def test_targets_are_named_by_their_ends_as_peft_does() -> None:
    assert target_paths(build("bert"), ["query", "layer.1.output.dense"]) == [
        "bert.encoder.layer.0.attention.self.query",
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.output.dense",
    ]


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("bert", "q_proj", r"no module 'q_proj'; name one or more of .*attention\.self\.query"),
        ("bert", "encoder.layer.0", r"is a BertLayer.*name one or more of attention\.self\.query"),
        ("bert", "embeddings.word_embeddings", "is a Embedding"),
        ("bert", "LayerNorm", "is a LayerNorm"),
        ("llama", "lm_head", "is read without the layer being run"),
        ("wav2vec2", "pos_conv_embed.conv", "and only linear"),
        ("small-cnn", "q_proj", "no module 'q_proj'; name one or more of"),
    ],
)
def test_a_target_without_a_place_is_refused_with_those_that_exist(name: str, target: str, words: str) -> None:
    with pytest.raises(UnfitAdapter, match=words):
        target_paths(build(name), [target])


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2, "padding": 2}, {"padding_mode": "circular"}])
def test_a_convolution_that_peft_would_copy_wrong_is_refused(options: dict[str, Any]) -> None:
    network: Any = build("small-cnn")
    network.features[4] = nn.Conv2d(4, 8, 3, **{"padding": 1, **options})
    assert target_paths(network, "auto") == ["features.0"]
    with pytest.raises(UnfitAdapter, match=r"into which no update can be merged; name one or more of features\.0, classifier"):
        target_paths(network, ["features.4"])


def test_a_layer_whose_weight_is_anothers_too_is_refused() -> None:
    network: Any = build("bert")
    layers = network.model.bert.encoder.layer
    layers[1].attention.self.query.weight = layers[0].attention.self.query.weight
    with pytest.raises(UnfitAdapter, match=r"shares its weight with bert\.encoder\.layer\.1"):
        target_paths(network, ["layer.0.attention.self.query"])


def test_a_new_head_is_trained_and_written_with_the_adapter(tmp_path: Path) -> None:
    network: Any = build("bert")
    attach(network, Lora(name="lora"), new_weights=["classifier.weight", "classifier.bias", "bert.pooler.dense.weight"])
    perturb(network, by=0.1)
    plain: Any = merged(network.eval())
    assert not torch.equal(plain.model.classifier.weight, build("bert").get_parameter("model.classifier.weight"))
    assert "bert.pooler.dense" not in targets_of(network)
    write_adapter(network, tmp_path, base="org/base", revision=None)
    again = build("bert")
    nn.init.zeros_(again.get_parameter("model.classifier.weight"))
    read_adapter(again, tmp_path)
    torch.testing.assert_close(outputs(again.eval(), "bert"), outputs(network, "bert"), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(outputs(plain, "bert"), outputs(network, "bert"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*NETWORKS, "small-cnn"])
def test_a_teacher_of_the_same_base_is_in_memory_once_and_never_changes(name: str) -> None:
    teacher, student = build(name), build(name)
    before, weights = outputs(teacher, name), copy.deepcopy(teacher.state_dict())
    attach(student, Lora(name="lora", dropout=0.1))
    share_weights(student, teacher)
    theirs = {weight.data_ptr() for weight in teacher.parameters()}
    frozen = {weight.data_ptr() for weight in student.parameters() if not weight.requires_grad}
    assert frozen == theirs
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    assert not {weight.data_ptr() for weight in trained} & theirs
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(2):
        student.train()(samples(name)).square().sum().backward()
        optimizer.step()
        assert torch.equal(outputs(teacher, name), before)
    plain = merged(student.eval())
    assert not torch.equal(outputs(plain, name), before)
    assert torch.equal(outputs(teacher, name), before)
    assert all(torch.equal(weight, weights[key]) for key, weight in teacher.state_dict().items())


def test_only_the_same_bits_are_shared() -> None:
    teacher, student = build("bert"), build("bert")
    with torch.no_grad():
        teacher.get_parameter("model.bert.embeddings.word_embeddings.weight")[3, 0] += 1e-3
        zero = teacher.get_parameter("model.bert.embeddings.LayerNorm.bias")
        zero.zero_()
        student.get_parameter("model.bert.embeddings.LayerNorm.bias").copy_(-torch.zeros_like(zero))
    attach(student, Lora(name="lora"))
    share_weights(student, teacher)
    theirs = {weight.data_ptr() for weight in teacher.parameters()}
    own = {name for name, weight in student.named_parameters() if weight.data_ptr() not in theirs and not weight.requires_grad}
    assert own == {"model.bert.embeddings.word_embeddings.weight", "model.bert.embeddings.LayerNorm.bias"}


def test_a_network_without_values_has_the_adapters_shapes() -> None:
    with torch.device("meta"):
        network = build_network(SmallCnn(name="small-cnn", width=4), input_shape=IMAGES, num_outputs=3)
    attach(network, Lora(name="lora", rank=4))
    assert all(weight.is_meta for weight in network.parameters())
    adapter, real = adapter_of(network), adapter_of(adapted("small-cnn"))
    assert adapter is not None
    assert real is not None
    assert adapter.num_parameters == real.num_parameters
