"""Loader processes: batches in the order of their announcement, whatever happens to the processes."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from worker.data.disk.loaders import Loaders, Made


@dataclass(frozen=True)
class Ramp:
    """Makes of each index a row of its multiples, and nothing in the second place."""

    width: int = 3
    refused: int = -1

    def __call__(self, indices: Tensor, epoch: int) -> Made:
        if self.refused in indices:
            raise ValueError("this one cannot be read")
        return [indices[:, None] * torch.arange(self.width) + epoch, None]


BATCHES = [(torch.arange(start, start + 4), 1) for start in range(0, 40, 4)]


def of(maker: Ramp, batches: list[tuple[Tensor, int]]) -> list[tuple[Ramp, Tensor, int]]:
    return [(maker, indices, epoch) for indices, epoch in batches]


@pytest.fixture
def loaders() -> Iterator[Loaders]:
    found = Loaders(2)
    yield found
    found.end()


def test_batches_come_as_they_were_announced_and_others_do_not(loaders: Loaders) -> None:
    ramp = Ramp()
    loaders.announce(of(ramp, BATCHES))
    for indices, epoch in BATCHES[:3]:
        made = loaders.take(ramp, indices, epoch)
        assert made is not None
        assert torch.equal(_first(made), _first(ramp(indices, epoch)))
        assert made[1] is None
    assert loaders.take(ramp, torch.tensor([7]), 1) is None
    assert loaders.take(ramp, BATCHES[4][0], 2) is None
    assert loaders.take(ramp, *BATCHES[4]) is not None, "what nobody asked for is passed over"
    assert loaders.take(ramp, *BATCHES[4]) is not None, "a second pass over a batch has it again"
    loaders.announce(of(ramp, BATCHES[:1]))
    assert loaders.take(ramp, *BATCHES[0]) is not None


def test_batches_that_nobody_asks_for_any_more_hold_up_no_others(loaders: Loaders) -> None:
    before, after = Ramp(width=4), Ramp(width=6)
    loaders.announce(of(before, BATCHES))
    loaders.announce(of(after, BATCHES))
    for batch in BATCHES:
        made = loaders.take(after, *batch)
        assert made is not None
        assert torch.equal(_first(made), _first(after(*batch)))


def test_a_batch_is_made_again_where_its_loader_is_killed(loaders: Loaders, caplog: pytest.LogCaptureFixture) -> None:
    ramp = Ramp(width=5)
    loaders.announce(of(ramp, BATCHES))
    for number, (indices, epoch) in enumerate(BATCHES):
        if number in (0, 5):
            os.kill(loaders.pids[number % 2], signal.SIGKILL)
        made = loaders.take(ramp, indices, epoch)
        assert made is not None
        assert torch.equal(_first(made), _first(ramp(indices, epoch)))
    assert caplog.text.count("are made again by another") >= 2


def test_what_a_loader_cannot_make_is_left_to_the_trainer(loaders: Loaders) -> None:
    ramp = Ramp(refused=5)
    loaders.announce(of(ramp, BATCHES[:3]))
    assert loaders.take(ramp, *BATCHES[0]) is not None
    assert loaders.take(ramp, *BATCHES[1]) is None
    assert loaders.take(ramp, *BATCHES[2]) is not None


def test_what_two_networks_ask_for_is_made_once_where_it_is_the_same(loaders: Loaders) -> None:
    wide, same, narrow = Ramp(width=9), Ramp(width=9), Ramp(width=2)
    loaders.announce([(maker, *batch) for batch in BATCHES for maker in (wide, same, narrow)])
    for batch in BATCHES:
        made, again, other = (loaders.take(maker, *batch) for maker in (wide, same, narrow))
        assert made is again is not None
        assert other is not None
        assert torch.equal(_first(other), _first(narrow(*batch)))


def _first(made: Made) -> Tensor:
    assert made[0] is not None
    return made[0]
