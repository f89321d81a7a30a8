"""The numbers of a view: golden, uniform, and a function of (seed, epoch, sample, stream) alone."""

import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worker.data.counter_rng import Numbers, _split_mix

WITH_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=WITH_GPU)]
CHI_SQUARE_256 = 341
"""Of 256 boxes that are equally likely, χ² lies below it in all but one of 4,000 cases."""


def draw(indices: Tensor, count: int = 4, *, seed: int = 5, epoch: int = 3, stream: int = 2) -> Tensor:
    return Numbers.of(indices, seed=seed, epoch=epoch).uniforms(count, stream=stream)


def draw_whole(indices: Tensor, *, below: int) -> Tensor:
    return Numbers.of(indices, seed=1, epoch=2).integers(below=below, stream=3)


def test_the_generator_is_split_mix_as_published() -> None:
    # The first numbers for this seed, as Vigna's splitmix64.c prints them.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    numbers = _split_mix(torch.tensor(1234567), torch.arange(5))
    assert [number % 2**64 for number in numbers.tolist()] == expected


@pytest.mark.parametrize("device", DEVICES)
def test_the_numbers_are_these_for_ever(device: str) -> None:
    numbers = draw(torch.arange(1000, device=device), 50)
    assert (numbers.dtype, numbers.device.type) == (torch.float32, device)
    assert hashlib.sha256(numbers.cpu().numpy().tobytes()).hexdigest()[:16] == "3b0b8af756f309d5"
    whole = draw_whole(torch.arange(6, device=device), below=10_000)
    assert whole.tolist() == [6217, 1722, 3661, 6772, 7428, 8055]


def test_a_samples_numbers_do_not_depend_on_its_batch_or_its_place_there() -> None:
    indices = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    together = draw(indices)
    assert torch.equal(draw(indices.flip(0)), together.flip(0))
    assert torch.equal(torch.cat([draw(piece) for piece in torch.split(indices, 7)]), together)
    assert torch.equal(draw(indices[3:4]).expand(2, -1), draw(indices[[3, 3]]))
    one_by_one = torch.cat([draw_whole(index, below=1000) for index in torch.split(indices, 1)])
    assert torch.equal(one_by_one, draw_whole(indices, below=1000))


def test_more_numbers_begin_with_the_same() -> None:
    assert torch.equal(draw(torch.arange(5), 100)[:, :3], draw(torch.arange(5), 3))


def test_no_global_generator_is_read_or_moved() -> None:
    torch.manual_seed(0)
    state, numbers = torch.get_rng_state(), draw(torch.arange(9))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(draw(torch.arange(9)), numbers)


@pytest.mark.parametrize("change", [{"seed": 6}, {"epoch": 4}, {"stream": 1}, {"seed": 3, "epoch": 5}, {"epoch": 2, "stream": 3}])
def test_another_seed_epoch_or_stream_gives_numbers_that_have_nothing_to_do_with_these(change: dict[str, int]) -> None:
    indices = torch.arange(20_000)
    assert abs(correlation(draw(indices, 1), draw(indices, 1, **change))) < 0.03


@pytest.mark.parametrize(
    "neighbours",
    [
        lambda numbers: (numbers[:-1], numbers[1:]),
        lambda numbers: (numbers[:, :-1], numbers[:, 1:]),
        lambda numbers: (numbers[:-1, :-1], numbers[1:, 1:]),
    ],
    ids=["of two samples", "of one sample", "across"],
)
def test_neighbouring_numbers_are_independent(neighbours: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    one, other = neighbours(draw(torch.arange(4_000), 10))
    assert abs(correlation(one, other)) < 0.02
    boxes = (one * 16).long() * 16 + (other * 16).long()
    assert chi_square(boxes.flatten().bincount(minlength=256)) < CHI_SQUARE_256


def test_the_numbers_are_spread_evenly() -> None:
    numbers = draw(torch.arange(10_000), 10)
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    assert chi_square((numbers * 256).long().flatten().bincount(minlength=256)) < CHI_SQUARE_256
    last_bits = (numbers * 2**24).long() % 256
    assert chi_square(last_bits.flatten().bincount(minlength=256)) < CHI_SQUARE_256


@pytest.mark.parametrize("below", [1, 2, 7, 257])
def test_whole_numbers_are_below_the_bound_and_spread_evenly(below: int) -> None:
    numbers = draw_whole(torch.arange(50_000), below=below)
    counts = numbers.bincount(minlength=below)
    assert len(counts) == below
    assert chi_square(counts) < below - 1 + 4 * (2 * below) ** 0.5


def test_a_large_bound_is_reached_all_over() -> None:
    below = 2**31 - 1
    numbers = draw_whole(torch.arange(10_000), below=below)
    assert len(set(numbers.tolist())) > 9_990
    assert chi_square((numbers * 16 // below).bincount(minlength=16)) < 45


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def chi_square(counts: Tensor) -> float:
    """Against equal chances."""
    expected = counts.sum() / len(counts)
    return float((counts - expected).square().sum() / expected)
