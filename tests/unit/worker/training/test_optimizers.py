"""Which weights each optimizer takes, and that it goes on from its state through a checkpoint's file as if never interrupted."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from service.spec.training import Adafactor, AdamW, AdamW8bit, Muon, Optimizer, Sgd
from tests.unit.worker.preflight.jobs import CNN, digits, refused
from worker.errors import UnfitTraining
from worker.models.transformers_network import TransformersNetwork
from worker.training.checkpoint import read_checkpoint, write_checkpoint
from worker.training.optimizers import Group, MuonWithAdamW, build_optimizer, hidden_matrices

SPECS = [
    AdamW(),
    Sgd(name="sgd", nesterov=True),
    Adafactor(name="adafactor"),
    AdamW8bit(name="adamw-8bit"),
    Muon(name="muon"),
]


def bert() -> TransformersNetwork:
    """With matrices of 4,096 weights, the least that bitsandbytes keeps in 8 bits, and smaller ones."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(**sizes, vocab_size=9, max_position_embeddings=8, num_labels=3)
    return TransformersNetwork(BertForSequenceClassification(config), input_name="input_ids", pad=0)


def built(network: nn.Module, spec: Optimizer) -> torch.optim.Optimizer:
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return build_optimizer([Group(weights[:5]), Group(weights[5:], scale=0.5)], spec, matrices=hidden_matrices(network))


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network.eval()
    network(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_an_optimizer_goes_on_from_its_state(tmp_path: Path, spec: Optimizer) -> None:
    network = bert()
    optimizer = built(network, spec)
    for _ in range(2):
        step(network, optimizer)
    write_checkpoint(tmp_path / "state", {"network": network.state_dict(), "optimizer": optimizer.state_dict()})
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    step(network, optimizer)

    again = bert()
    optimizer_again = built(again, spec)
    state = read_checkpoint(tmp_path / "state")
    again.load_state_dict(state["network"])
    optimizer_again.load_state_dict(state["optimizer"])
    for group in optimizer_again.param_groups:
        group["lr"] *= 0.5
    step(again, optimizer_again)

    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), network.parameters(), strict=True))
    assert sum(map(len, optimizer_again.state.values())) == sum(map(len, optimizer.state.values())) > 0


def test_muon_takes_the_matrices_of_the_hidden_layers_and_adamw_all_else() -> None:
    network = bert()
    optimizer = built(network, Muon(name="muon", learning_rate=0.02, adamw_learning_rate=0.003))
    taken = {id(each): group for group in optimizer.param_groups for each in group["params"]}
    by_muon = {name for name, each in network.named_parameters() if "momentum" in taken[id(each)]}
    layer = "model.bert.encoder.layer.0"
    assert by_muon == {
        *(f"{layer}.attention.self.{name}.weight" for name in ("query", "key", "value")),
        *(f"{layer}.{name}.dense.weight" for name in ("attention.output", "intermediate", "output")),
    }
    assert len(taken) == len(list(network.parameters()))
    assert {group["lr"] for group in optimizer.param_groups} == {0.02 * 0.5, 0.003, 0.003 * 0.5}


def test_a_step_of_muon_is_that_of_torchs_muon_and_adamw() -> None:
    network, other = bert(), bert()
    spec = Muon(name="muon")
    matrices = hidden_matrices(other)
    rest = [each for each in other.parameters() if each not in matrices]
    by_hand = [
        torch.optim.Muon(matrices, lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay),
        torch.optim.AdamW(rest, lr=spec.adamw_learning_rate, weight_decay=spec.weight_decay, fused=True),
    ]
    optimizer = build_optimizer([Group(list(network.parameters()))], spec, matrices=hidden_matrices(network))
    for _ in range(2):
        step(network, optimizer)
        other.eval()(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])).square().sum().backward()
        for each in by_hand:
            each.step()
            each.zero_grad()
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("freeze", [lambda model: model.bert.encoder, lambda model: model.bert.embeddings])
def test_frozen_weights_are_in_no_group(freeze: Callable[[nn.Module], nn.Module]) -> None:
    network = bert()
    freeze(network.model).requires_grad_(False)
    if not any(each.requires_grad for each in hidden_matrices(network)):
        with pytest.raises(UnfitTraining, match="convolutions, or frozen"):
            built(network, Muon(name="muon"))
        return
    optimizer = built(network, Muon(name="muon"))
    assert isinstance(optimizer, MuonWithAdamW)
    assert all(each.requires_grad for group in optimizer.param_groups for each in group["params"])


@pytest.mark.parametrize("place", ["training", "teacher/training"])
def test_muon_is_refused_where_no_layer_has_a_matrix(tmp_path: Path, place: str) -> None:
    training = {"optimizer": {"name": "muon"}}
    parts = {"training": training} if place == "training" else {}
    teacher = {} if parts else {"teacher": {"architecture": CNN, "training": training}}
    refusal = refused(digits(**parts, **teacher), tmp_path)
    assert refusal.details["pointer"] == f"/{place}/optimizer/name"
    assert "adamw" in (refusal.hint or "")


def test_without_its_package_or_its_library_adamw_8bit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes import cextension

    spec, weights = AdamW8bit(name="adamw-8bit"), list(nn.Linear(2, 2).parameters())
    monkeypatch.setattr(cextension, "lib", cextension.ErrorHandlerMockBNBNativeLibrary("it is not there"))
    with pytest.raises(UnfitTraining, match="library for this machine"):
        build_optimizer([Group(weights)], spec)
    monkeypatch.setitem(sys.modules, "bitsandbytes.cextension", None)
    with pytest.raises(UnfitTraining, match="needs the package bitsandbytes"):
        build_optimizer([Group(weights)], spec)
