"""What leaves a training enters another one of the same network, bit for bit; of an adapter nothing else does."""

import pytest
import torch
from torch import nn

from service.spec.adapters import Lora
from service.spec.architectures import SmallCnn
from worker.models import build_network
from worker.models.adapters import attach, frozen_norms
from worker.training.kept_weights import kept, num_kept_bytes, restore


def network(seed: int = 0, *, lora: Lora | None = None) -> nn.Module:
    torch.manual_seed(seed)
    made = build_network(SmallCnn(name="small-cnn", width=4), input_shape=(1, 8, 8), num_outputs=3)
    if lora is not None:
        attach(made, lora)
    return made


def lora(rank: int = 2) -> Lora:
    return Lora(name="lora", rank=rank)


def perturb(module: nn.Module) -> None:
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight))
    module.train()
    for norm in frozen_norms(module):
        norm.eval()
    module(torch.randn(4, 1, 8, 8))  # moves the statistics of the batch norms that are not frozen


def test_a_whole_network_leaves_and_enters_bit_for_bit() -> None:
    trained = network()
    perturb(trained)
    weights = kept(trained)
    assert weights.keys() == trained.state_dict().keys()
    again = network(seed=1)
    restore(again, weights)
    assert all(tensor.equal(weights[name]) for name, tensor in again.state_dict().items())


def test_what_was_kept_stays_while_the_network_trains_on() -> None:
    trained = network()
    weights = kept(trained)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    perturb(trained)
    assert all(tensor.equal(before[name]) for name, tensor in weights.items())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_tied_weight_is_kept_once(device: str) -> None:
    trained = Tied().to(device)
    trained.head.weight = trained.embedding.weight
    weights = kept(trained) if device == "cpu" else {}
    assert num_kept_bytes(trained) == 5 * 3 * 4
    assert len({tensor.data_ptr() for tensor in weights.values()}) == len(weights) // 2
    if weights:
        again = Tied()
        restore(again, weights)
        assert again.head.weight is again.embedding.weight
        assert again.head.weight.equal(trained.head.weight)


def test_an_adapter_leaves_alone_and_completes_its_base_bit_for_bit() -> None:
    trained = network(lora=lora())
    perturb(trained)
    weights = kept(trained)
    assert weights
    assert all("lora_" in name for name in weights)
    again = network(lora=lora())
    restore(again, weights)
    inputs = torch.randn(2, 1, 8, 8)
    assert torch.equal(again.eval()(inputs), trained.eval()(inputs))


@pytest.mark.parametrize("other", ["of another rank", "without an adapter"])
def test_weights_of_another_network_are_refused(other: str) -> None:
    weights = kept(network(lora=lora()))
    with pytest.raises(RuntimeError):
        restore(network(lora=lora(rank=3) if other == "of another rank" else None), weights)


def test_an_adapter_of_other_layers_is_refused() -> None:
    model = network()
    first = next(path for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    attach(model, Lora(name="lora", targets=[first]))
    with pytest.raises(RuntimeError, match="another adapter"):
        restore(network(lora=Lora(name="lora")), kept(model))
