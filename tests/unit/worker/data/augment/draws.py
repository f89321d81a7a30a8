"""Numbers for an operation, chosen by a test in place of drawn ones."""

import torch
from torch import Tensor

from worker.data.augment.operation import Draw
from worker.data.counter_rng import Numbers


def chosen(*rows: list[float]) -> Draw:
    """These numbers, a row for each sample."""

    def draw(count: int) -> Tensor:
        numbers = torch.tensor(rows)
        assert numbers.shape[1] == count
        return numbers

    return draw


def drawn(num_samples: int, *, seed: int = 0) -> Draw:
    """Numbers as a training draws them."""
    numbers = Numbers.of(torch.arange(num_samples), seed=seed, epoch=0)
    return lambda count: numbers.uniforms(count, stream=0)
