"""A checkpoint comes back bit for bit, or not at all."""

import math
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from worker.distributed.rng import generator_states, restore_generators, seed_everything
from worker.training.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


def test_any_tree_of_values_comes_back_as_it_was(path: Path) -> None:
    weights = torch.randn(10, 3)
    state = {
        "numbers": [0, -1, 2**70, 0.1, 1e-320, math.inf, -math.inf, True, None, "text", ""],
        "nested": {"tuple": (1, (2.5, ["x"])), "empty": [{}, [], ()]},
        "integer keys": {0: {"exp_avg": torch.ones(2)}, 1: {}},
        "marks": {"$tensor": 1, "$tuple": [2]},
        "weights": weights,
        "tied": weights,
        "slice": weights[:, 1],
        "transposed": weights.t(),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "types": [torch.ones(2, dtype=dtype) for dtype in (torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)],
    }
    write_checkpoint(path, state)

    assert same(read_checkpoint(path), state)


def test_a_tied_weight_is_stored_once_and_a_view_of_it_for_itself(path: Path) -> None:
    weight = torch.rand(100, 100)
    state = {"weight": weight, "tied": weight, "flat": weight.view(-1)}
    write_checkpoint(path, state)
    again = read_checkpoint(path)
    assert again["tied"] is again["weight"]
    assert 2 * weight.nbytes < path.stat().st_size < 3 * weight.nbytes
    assert same(again, state)


def test_a_nan_among_the_values_comes_back_as_one(path: Path) -> None:
    write_checkpoint(path, {"value": math.nan, "tensor": torch.tensor([math.nan, 1.0])})
    state = read_checkpoint(path)

    assert math.isnan(state["value"])
    assert state["tensor"].isnan().tolist() == [True, False]


def test_a_value_that_json_cannot_hold_is_refused_by_its_place(path: Path) -> None:
    with pytest.raises(TypeError, match=r"state/a/1 is set"):
        write_checkpoint(path, {"a": [1, {2}]})

    assert not path.exists()


def test_there_is_no_checkpoint_in_an_empty_folder(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(path)


@pytest.mark.parametrize("position", [0, 9, 200, -1000, -1])
def test_one_flipped_bit_is_found(path: Path, position: int) -> None:
    write_checkpoint(path, {"weights": torch.randn(1000), "step": 7})
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)

    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(path)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_found(path: Path, size: int) -> None:
    write_checkpoint(path, {"weights": torch.randn(1000)})
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(path)


def test_a_file_of_weights_is_no_checkpoint(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, path)

    with pytest.raises(DamagedCheckpoint, match="format"):
        read_checkpoint(path)


def test_a_write_that_never_ended_leaves_the_checkpoint_before(path: Path) -> None:
    write_checkpoint(path, {"step": 1})
    path.with_name(f"{path.name}.writing").write_bytes(b"half of a ch")

    assert read_checkpoint(path) == {"step": 1}
    write_checkpoint(path, {"step": 2})
    assert read_checkpoint(path) == {"step": 2}
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_that_was_read_outlives_its_file(path: Path) -> None:
    write_checkpoint(path, {"weights": torch.full((1000,), 1.0)})
    state = read_checkpoint(path)
    write_checkpoint(path, {"weights": torch.full((1000,), 2.0)})
    path.write_bytes(b"")

    assert torch.equal(state["weights"], torch.full((1000,), 1.0))


def test_every_generator_goes_on_from_its_state(path: Path) -> None:
    seed_everything(3)
    random.random(), numpy.random.normal(), torch.rand(5)
    write_checkpoint(path, generator_states(CPU))
    drawn = random.random(), float(numpy.random.normal()), torch.rand(5).tolist()

    seed_everything(4)
    restore_generators(read_checkpoint(path), CPU)

    assert (random.random(), float(numpy.random.normal()), torch.rand(5).tolist()) == drawn
