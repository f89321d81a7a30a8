"""Networks from the spec: what they compute, and that what is let through really builds."""

import json
from itertools import product
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from service.spec.architectures import ARCHITECTURES, CifarResNet, SmallCnn, TransformersNetwork
from service.spec.fit import architecture_faults
from service.spec.transformers_fit import TABLE_FILE, classifiers
from tests.unit.worker.models.kinds import kind_of
from worker.models import UnfitArchitecture, build_network, num_parameters
from worker.models.build_transformers import build_transformers_network
from worker.models.transformers_table import make_table
from worker.tasks import TASKS

PARAMETERS = {
    "resnet20": 278_324,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "wrn-40-2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenetv2": 812_836,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
}
"""Of the networks for CIFAR, with 100 classes, in the forms of RepDistiller (Tian et al., 2020)."""
MAPS = {
    "wrn-16-2": {"conv1": (16, 32), "layer1": (32, 32), "layer2": (64, 16), "layer3": (128, 8)},
    "vgg8": {"layer1": (64, 32), "layer2": (128, 16), "layer3": (256, 8), "layer4": (512, 4), "layer5": (512, 4)},
    "mobilenetv2": {"relu": (16, 16), "layer2": (12, 16), "layer3": (16, 8), "layer5": (48, 4), "layer7": (160, 2)},
    "shufflenetv1": {"relu": (24, 32), "layer1": (240, 16), "layer2": (480, 8), "layer3": (960, 4)},
    "shufflenetv2": {"relu": (24, 32), "layer1": (116, 16), "layer2": (232, 8), "layer3": (464, 4)},
}
"""Channels and pixels of a side that the modules give out for a 32x32 image, by module path, one network of each kind."""


def cifar(name: str) -> Any:
    """A network for CIFAR."""
    return ARCHITECTURES[name].spec.model_validate({"name": name})


def outputs(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every module gave out, by its path, at the end of the forward."""
    seen: dict[str, torch.Tensor] = {}
    for path, module in network.named_modules():
        module.register_forward_hook(lambda _module, _inputs, output, path=path: seen.update({path: output}))
    network(images)
    return seen


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_cifar_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    network = build_network(cifar(name), input_shape=(3, 32, 32), num_outputs=100)
    assert num_parameters(network) == parameters


def test_every_network_without_parameters_of_its_own_is_one_of_the_published() -> None:
    assert PARAMETERS.keys() == ARCHITECTURES.keys() - {"small-cnn", "transformers"}


@pytest.mark.parametrize(("name", "maps"), MAPS.items())
def test_the_stages_give_out_the_published_maps(name: str, maps: dict[str, tuple[int, int]]) -> None:
    network = build_network(cifar(name), input_shape=(3, 32, 32), num_outputs=10)
    seen = outputs(network, torch.rand(2, 3, 32, 32))
    assert {path: tuple(seen[path].shape) for path in maps} == {
        path: (2, channels, pixels, pixels) for path, (channels, pixels) in maps.items()
    }
    assert seen["pool"].flatten(1).shape[1] == network.get_submodule("fc").in_features


@pytest.mark.parametrize("name", ["resnet20", *MAPS])
def test_no_module_changes_what_another_gave_out(name: str) -> None:
    network = build_network(cifar(name), input_shape=(1, 8, 8), num_outputs=3)
    seen = outputs(network, torch.rand(2, 1, 8, 8))
    assert [path for path, output in seen.items() if output._version > 0] == []


@pytest.mark.parametrize(("pixels", "last"), [(32, 4), (63, 8), (64, 4)])
def test_vgg_halves_images_of_64_pixels_once_more(pixels: int, last: int) -> None:
    network = build_network(cifar("vgg8"), input_shape=(1, pixels, pixels), num_outputs=3)
    assert outputs(network, torch.rand(1, 1, pixels, pixels))["layer5"].shape == (1, 512, last, last)


@pytest.mark.parametrize(
    "architecture", [SmallCnn(name="small-cnn", width=4), *map(cifar, PARAMETERS)], ids=lambda spec: spec.name
)
@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 9, 13), (2, 32, 32)], ids=str)
def test_own_networks_read_any_channels_and_sizes_and_learn(architecture: Any, input_shape: tuple[int, int, int]) -> None:
    network = build_network(architecture, kind=kind_of(architecture), input_shape=input_shape, num_outputs=5)
    # A last batch may hold one sample.
    loss = network(torch.rand(1, *input_shape)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}
WINDOWS = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 2}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 10, 16]}
TINY: dict[str, dict[str, Any]] = {
    **{name: {**LAYERS, "intermediate_size": 16} for name in ("beit", "data2vec-vision", "deit", "ijepa", "vit", "vit_msn")},
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), LAYERS),
    **{name: {**STAGES, "num_stages": 2} for name in ("convnext", "convnextv2")},
    **dict.fromkeys(("swin", "donut-swin"), WINDOWS),
    **dict.fromkeys(("pvt", "pvt_v2", "segformer"), PYRAMID),
    **{name: {"depth_multiplier": 0.25} for name in ("mobilenet_v1", "mobilenet_v2")},
    "bit": {**STAGES, "embedding_size": 8, "num_groups": 4},
    "cvt": {"depth": [1, 2, 3], "embed_dim": [8, 8, 8], "num_heads": [1, 1, 2]},
    "efficientnet": {"width_coefficient": 0.3, "depth_coefficient": 0.1, "hidden_dim": 384},
    "focalnet": {"depths": [1, 1, 1, 1], "embed_dim": 8, "hidden_sizes": [8, 16, 32, 64]},
    "hiera": {"embed_dim": 8, "depths": [1, 1, 1, 1]},
    "levit": {"depths": [1, 1, 1], "hidden_sizes": [16, 16, 16], "num_attention_heads": [1, 1, 2]},
    "mobilevit": {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]},
    "mobilevitv2": {"width_multiplier": 0.25},
    "poolformer": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]},
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 8},
    "resnet": {**STAGES, "embedding_size": 8, "hidden_act": "gelu"},
    "swiftformer": {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16]},
    "swinv2": {**WINDOWS, "patch_size": 4, "pretrained_window_sizes": [0, 0]},
}
"""Small configs of the model types that have a short one; the others are built as they come."""


def tiny(model_type: str) -> TransformersNetwork:
    """A small network of that type."""
    return TransformersNetwork(name="transformers", model_type=model_type, config=TINY.get(model_type, {}))


@pytest.mark.parametrize("architecture", [tiny("vit"), *map(cifar, MAPS)], ids=lambda spec: spec.name)
def test_the_same_seed_gives_the_same_network(architecture: Any) -> None:
    states, images = [], torch.rand(2, 1, 8, 8)
    for _ in range(2):
        torch.manual_seed(0)
        network = build_network(architecture, kind=kind_of(architecture), input_shape=(1, 8, 8), num_outputs=3)
        drawn = torch.rand(1)
        states.append({**network.state_dict(), "drawn next": drawn, "logits": network(images)})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


VISION_TYPES = classifiers("image-classification")
SHAPES = [(3, 64, 64), (1, 28, 28), (1, 8, 8), (3, 32, 48)]
DRAWN = {(model_type, shape) for model_type in VISION_TYPES for shape in Random(model_type).sample(SHAPES, 2)}
"""Two shapes for each model type; those that are not drawn are left to `make exhaustive`."""


@pytest.mark.parametrize(
    ("model_type", "input_shape"),
    [pytest.param(*each, marks=[] if each in DRAWN else pytest.mark.exhaustive) for each in product(VISION_TYPES, SHAPES)],
    ids=str,
)
def test_what_is_let_through_builds_and_what_is_refused_for_its_shape_would_not(
    model_type: str, input_shape: tuple[int, int, int]
) -> None:
    architecture = tiny(model_type)
    faults = architecture_faults(architecture, input_shape=input_shape, num_outputs=3)
    if not faults:
        network = build_network(architecture, kind=kind_of(architecture), input_shape=input_shape, num_outputs=3).eval()
        assert network(torch.rand(2, *input_shape)).shape == (2, 3)
        return
    with pytest.raises(UnfitArchitecture):
        build_network(architecture, kind=kind_of(architecture), input_shape=input_shape, num_outputs=3)
    # Networks with a grid of patches would build, and never see the border.
    if "divide" not in faults[0].message:
        with pytest.raises(UnfitArchitecture, match="transformers cannot build"):
            build_transformers_network(
                architecture, kind=TASKS["image-classification"].network, input_shape=input_shape, num_outputs=3
            )


@pytest.mark.parametrize(
    ("architecture", "input_shape"),
    [
        (SmallCnn(name="small-cnn"), (1, 3, 3)),
        (CifarResNet(name="resnet20"), (3, 4, 4)),
        *((cifar(name), (3, 8, 7)) for name in MAPS),
        (tiny("bert"), (3, 8, 8)),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused_with_words(architecture: Any, input_shape: tuple[int, int, int]) -> None:
    with pytest.raises(UnfitArchitecture, match=r"pixels and more|no image classifier"):
        build_network(architecture, kind=kind_of(architecture), input_shape=input_shape, num_outputs=3)


def test_what_the_library_alone_refuses_is_refused_with_its_words() -> None:
    architecture = TransformersNetwork(name="transformers", model_type="resnet", config={**STAGES, "layer_type": "round"})
    with pytest.raises(UnfitArchitecture, match="layer_type"):
        build_network(architecture, kind=kind_of(architecture), input_shape=(3, 8, 8), num_outputs=3)


def test_the_table_of_configs_is_that_of_the_installed_library() -> None:
    table = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    assert table == json.loads(json.dumps(make_table())), "run python -m worker.models.transformers_table"


@pytest.mark.parametrize("name", ["small-cnn", *PARAMETERS])
def test_the_layers_that_a_network_offers_to_methods_are_its_stages_and_a_vector(name: str) -> None:
    network: Any = build_network(cifar(name), input_shape=(3, 32, 32), num_outputs=100)
    seen = outputs(network.eval(), torch.rand(2, 3, 32, 32))
    sides = [seen[path].shape[-1] for path in network.stage_layers]
    assert sides == sorted(sides, reverse=True)
    assert all(seen[path].dim() == 4 for path in network.stage_layers)
    (embedding,) = network.embedding_layers
    assert seen[embedding].flatten(1).shape[1] == num_inputs(network)


def num_inputs(network: nn.Module) -> int:
    """Width of what the last linear layer reads."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1].in_features
