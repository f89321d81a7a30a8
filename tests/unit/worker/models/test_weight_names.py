"""Weights that were saved from a wrapped network."""

from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ViTForImageClassification

from service.spec.architectures import SmallCnn
from tests.unit.worker.models.test_folder import GREY, saved, uploaded
from worker.models import UnreadableNetwork
from worker.models.weight_names import plain_names
from worker.tasks import load_network

IMAGES = torch.linspace(0, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)


def rename(folder: Path, name: Callable[[str], str]) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name(key): value for key, value in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def wrap(network: nn.Module, attribute: str) -> nn.Module:
    """A network as an attribute of another one: ``_orig_mod`` of torch.compile's, ``module`` of DistributedDataParallel's."""
    wrapper = nn.Module()
    wrapper.add_module(attribute, network)
    return wrapper


@pytest.mark.parametrize("attributes", [["_orig_mod"], ["module"], ["_orig_mod", "module"]], ids="-".join)
@pytest.mark.parametrize("shard_size", ["1GB", "4KB"])
def test_a_network_that_was_saved_in_its_wrapper_computes_the_same(
    tmp_path: Path, attributes: list[str], shard_size: str
) -> None:
    folder = uploaded(tmp_path / "vit")
    expected = load_network(folder).network(IMAGES)
    model = ViTForImageClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    wrapped = reduce(wrap, attributes, model)
    model.save_pretrained(folder, state_dict=wrapped.state_dict(), max_shard_size=shard_size)
    names = [name for file in folder.glob("*.safetensors") for name in load_file(file)]
    assert all("module." in name or "_orig_mod." in name for name in names)
    assert torch.equal(load_network(folder).network(IMAGES), expected)


def test_a_part_that_was_wrapped_alone_is_found_by_its_name(tmp_path: Path) -> None:
    folder = uploaded(tmp_path / "vit")
    expected = load_network(folder).network(IMAGES)
    rename(
        folder, lambda name: name.replace("vit.layers.0.", "vit.layers.0._orig_mod.").replace("mlp.", "mlp._fsdp_wrapped_module.")
    )
    assert torch.equal(load_network(folder).network(IMAGES), expected)


def test_an_own_network_that_was_saved_in_its_wrapper_computes_the_same(tmp_path: Path) -> None:
    network, folder = saved(tmp_path, SmallCnn(name="small-cnn", width=4), (1, 8, 8), GREY)
    rename(folder, lambda name: f"module.{name}")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_network(folder).network(images), network(images))


def test_a_layer_that_is_called_module_keeps_its_name() -> None:
    assert plain_names(["module.weight", "head.weight"]) == {"module.weight": "module.weight", "head.weight": "head.weight"}


def test_a_name_that_stands_twice_without_the_wrapper_is_refused(tmp_path: Path) -> None:
    folder = uploaded(tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    averaged = {f"_orig_mod.{name}": value.clone() for name, value in state.items()}
    save_file({**state, **averaged}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnreadableNetwork, match=r"holds 'classifier.bias' twice, plain and as a wrapped network names it"):
        load_network(folder)


def test_a_network_within_another_is_told_and_the_remedy_works(tmp_path: Path) -> None:
    folder = uploaded(tmp_path / "vit")
    expected = load_network(folder).network(IMAGES)
    network = wrap(ViTForImageClassification.from_pretrained(folder), "model")
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnreadableNetwork, match=r"behind 'model\.'; save that part of it, as network\.model\.save_pretrained"):
        load_network(folder)
    network.model.save_pretrained(folder)  # type: ignore[operator, union-attr]
    assert torch.equal(load_network(folder).network(IMAGES), expected)
