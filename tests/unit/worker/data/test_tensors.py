"""One tensor and several by name are handled alike."""

import pytest
import torch
from torch import Tensor

from worker.data.tensors import (
    Inputs,
    concatenate,
    home_of,
    num_bytes,
    num_rows,
    num_values,
    only_tensor,
    select_rows,
    slice_rows,
    to_device,
)

IDS = torch.arange(12).reshape(4, 3)
NAMED = {"ids": IDS, "first_pieces": IDS[:, :2] + 100}


def equal(some: Inputs, other: Inputs) -> bool:
    if isinstance(some, Tensor) or isinstance(other, Tensor):
        return isinstance(some, Tensor) and isinstance(other, Tensor) and torch.equal(some, other)
    return some.keys() == other.keys() and all(torch.equal(some[name], other[name]) for name in some)


def test_rows_are_selected_of_every_tensor() -> None:
    rows = torch.tensor([3, 0])
    assert torch.equal(select_rows(IDS, rows), IDS[[3, 0]])
    assert equal(select_rows(NAMED, rows), {"ids": IDS[[3, 0]], "first_pieces": NAMED["first_pieces"][[3, 0]]})


def test_a_slice_is_a_view_and_may_reach_past_the_end() -> None:
    part = slice_rows(IDS, 2, 9)
    assert torch.equal(part, IDS[2:])
    assert part.data_ptr() == IDS[2:].data_ptr()
    assert num_rows(slice_rows(NAMED, 2, 9)) == 2


def test_pieces_are_put_together_again() -> None:
    assert equal(concatenate([slice_rows(IDS, 0, 1), slice_rows(IDS, 1, 4)]), IDS)
    assert equal(concatenate([slice_rows(NAMED, 0, 3), slice_rows(NAMED, 3, 4)]), NAMED)


def test_rows_values_and_bytes_are_those_of_all_tensors() -> None:
    assert (num_rows(IDS), num_values(IDS), num_bytes(IDS)) == (4, 12, 12 * 8)
    assert (num_rows(NAMED), num_values(NAMED), num_bytes(NAMED)) == (4, 12 + 8, (12 + 8) * 8)


def test_inputs_go_to_a_device() -> None:
    assert to_device(IDS, torch.device("cpu")) is IDS
    assert home_of(IDS) == home_of(NAMED) == torch.device("cpu")
    moved = to_device(NAMED, "meta", non_blocking=True)
    assert home_of(moved) == torch.device("meta")
    assert moved.keys() == NAMED.keys()


def test_named_tensors_are_not_taken_for_one() -> None:
    assert only_tensor(IDS) is IDS
    with pytest.raises(TypeError, match="ids, first_pieces"):
        only_tensor(NAMED)
