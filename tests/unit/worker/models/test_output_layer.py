"""The layer that computes a network's outputs, for every architecture that a spec may name: rescaled, the outputs are too."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from service.spec.architectures import SmallCnn, TransformersNetwork
from service.spec.shapes import InputShape, TokenShape
from service.spec.transformers_fit import classifiers
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import MAPS, cifar, tiny
from tests.unit.worker.models.test_fold import DEIT, IMAGE, LEVIT, Logits
from tests.unit.worker.models.test_language_network import GROUPED, SMALL, USUAL
from tests.unit.worker.models.test_privileged import IMAGES, TARGETS, privileged
from tests.unit.worker.models.test_waveform_networks import CONFIG, OWN
from worker.models import build_network
from worker.models.output_layer import FixedOffset, NoOutputLayer, find_output_layer
from worker.models.privileged import fold_weights

W = 3
TOKENS = TokenShape(20, 8, pad=1, start=0, end=2)
TEXTS: dict[str, dict[str, Any]] = (
    {name: USUAL | {"num_key_value_heads": 1} for name in GROUPED}
    | SMALL
    | {
        "albert": USUAL | {"embedding_size": 8},
        "distilbert": {"dim": 16, "n_heads": 2, "hidden_dim": 16, "n_layers": 1},
        "electra": USUAL | {"embedding_size": 8},
        "mobilebert": USUAL | {"embedding_size": 8, "intra_bottleneck_size": 16, "num_feedforward_networks": 1},
        "opt": {key: value for key, value in SMALL["opt"].items() if key != "word_embed_proj_dim"},
    }
)
WITHOUT_OFFSET = {"llama", "mistral", "qwen2", "qwen3", "opt, projected"}
"""Their heads have no bias, and what is before the head neither."""


def cases() -> dict[str, tuple[Any, InputShape]]:
    """An architecture of each kind and the inputs that it reads, by name."""
    found: dict[str, tuple[Any, InputShape]] = {"small-cnn": (SmallCnn(name="small-cnn", width=2), IMAGE)}
    found |= {name: (cifar(name), IMAGE) for name in ("resnet20", "wrn-16-2", *MAPS)}
    found |= {name: (tiny(name), (3, 64, 64)) for name in classifiers("image-classification")}
    found["opt, projected"] = TransformersNetwork(name="transformers", model_type="opt", config=SMALL["opt"]), TOKENS
    for name in classifiers("text-classification"):
        found[name] = TransformersNetwork(name="transformers", model_type=name, config=TEXTS.get(name, USUAL)), TOKENS
    for name in classifiers("audio-classification"):
        config = (CONFIG | OWN[name]) if name in OWN else (USUAL | {"patch_size": 4})
        shape = (2000,) if name in OWN else (1, 32, 16)
        found[name] = TransformersNetwork(name="transformers", model_type=name, config=config), shape
    return found


CASES = cases()
SCALE, SHIFT = torch.tensor([2.0, 1e-3, 50.0]), torch.tensor([1997.0, 1.0, -3.0])


def samples(shape: InputShape) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if isinstance(shape, TokenShape):
        ids = torch.randint(3, shape.vocabulary, (4, shape.length), generator=generator)
        ids[0, 5:] = shape.pad
        return ids
    return torch.randn(4, *shape, generator=generator)


@torch.no_grad()
def assert_rescales(network: nn.Module, inputs: Tensor, *, scale: Tensor = SCALE, shift: Tensor = SHIFT) -> None:
    """The outputs become ``scale · outputs + shift``; in float64, where only a difference that is none of rounding shows."""
    network.double().eval()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    before = network(inputs)
    if not before.std(dim=0).all():  # EfficientNet begins with weights so small that nothing of its inputs arrives
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.3)
        before = network(inputs)
    assert before.std(dim=0).all(), "outputs that are constant would not show a scale"
    find_output_layer(network, inputs[:2]).rescale(scale, shift)
    torch.testing.assert_close(network(inputs), before * scale + shift, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM hands torch masks of two types
@pytest.mark.parametrize("name", CASES)
def test_the_outputs_of_every_architecture_are_rescaled_exactly_or_have_no_place_for_an_offset(name: str) -> None:
    architecture, shape = CASES[name]
    torch.manual_seed(0)
    network, inputs = build_network(architecture, kind=kind_of(architecture), input_shape=shape, num_outputs=W), samples(shape)
    if name not in WITHOUT_OFFSET:
        assert_rescales(network, inputs)
        return
    state = {key: value.clone() for key, value in network.state_dict().items()}
    layer = find_output_layer(network, inputs)
    assert not layer.is_shiftable
    with pytest.raises(FixedOffset, match="no bias"):
        layer.rescale(SCALE, SHIFT)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert_rescales(network, inputs, shift=torch.zeros(W))


@pytest.mark.parametrize(("name", "config"), [("DeiT", DEIT), ("Levit", LEVIT)])
def test_a_mean_of_two_heads_is_rescaled_in_both(name: str, config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForImageClassificationWithTeacher")
    network = Logits(model(getattr(transformers, f"{name}Config")(**config, num_labels=W)))
    inputs = samples(IMAGE)
    assert len(find_output_layer(network.eval(), inputs).layers) == 2
    assert_rescales(network, inputs)


def test_a_student_of_a_distillation_network_is_rescaled_once_it_is_folded() -> None:
    wide = privileged()
    plain = build_network(SmallCnn(name="small-cnn", width=2), input_shape=(1, 8, 8), num_outputs=TARGETS.width)
    plain.load_state_dict(fold_weights(wide.state_dict(), plain.state_dict(), TARGETS, extra_input=True))
    scale, shift = torch.tensor([1.0, 1.0, 1.0, 5.6]), torch.tensor([0.0, 0.0, 0.0, 1997.0])
    with torch.no_grad():
        before = wide(IMAGES)
        find_output_layer(plain.eval(), IMAGES).rescale(scale, shift)
        torch.testing.assert_close(plain(IMAGES), before * scale + shift, rtol=1e-5, atol=1e-5)


class Head(nn.Module):
    """A pooling by mean, a head, and something behind it."""

    def __init__(self, head: nn.Module, behind: nn.Module) -> None:
        super().__init__()
        self.head, self.behind = head, behind

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.behind(self.head(inputs)).flatten(2).mean(dim=2)
        return outputs


@pytest.mark.parametrize("behind", [nn.Tanh(), nn.ReLU(), nn.BatchNorm2d(W), nn.GroupNorm(1, W), nn.Softmax(dim=1)], ids=str)
def test_a_head_with_anything_but_a_choice_or_a_mean_behind_it_is_none(behind: nn.Module) -> None:
    inputs = torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    network = Head(nn.Conv2d(5, W, 1), behind).eval()
    if isinstance(behind, nn.BatchNorm2d):
        behind.running_mean = torch.ones(W)
        behind.running_var = torch.full((W,), 2.0)
    with pytest.raises(NoOutputLayer, match="an activation or a norm"):
        find_output_layer(network, inputs)


def test_a_convolution_before_a_pooling_is_a_head() -> None:
    inputs = torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    assert_rescales(Head(nn.Conv2d(5, W, 1), nn.Identity()), inputs)


def test_a_network_without_a_linear_layer_of_its_width_has_none() -> None:
    with pytest.raises(NoOutputLayer, match="no linear layer gives its 6 outputs"):
        find_output_layer(nn.Sequential(nn.Linear(5, 4), nn.AvgPool1d(2), nn.Upsample(scale_factor=3)), torch.randn(4, 1, 5))


def test_looking_for_the_layer_leaves_the_network_and_the_random_numbers_as_they_were() -> None:
    network = build_network(SmallCnn(name="small-cnn", width=2), input_shape=IMAGE, num_outputs=W).train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    find_output_layer(network, samples(IMAGE))
    assert torch.equal(torch.rand(1), expected)
    assert network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
