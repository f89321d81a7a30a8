"""Numbers for an operation, chosen by a test in place of drawn ones."""

import torch
from torch import Tensor

from worker.data.augment.operation import Draw
from worker.data.views import uniforms


def chosen(*rows: list[float]) -> Draw:
    """These numbers, a row for each sample."""

    def draw(count: int) -> Tensor:
        numbers = torch.tensor(rows)
        assert numbers.shape[1] == count
        return numbers

    return draw


def drawn(num_samples: int, *, seed: int = 0) -> Draw:
    """Numbers as a training draws them."""
    return lambda count: uniforms(seed, 0, torch.arange(num_samples), count, stream=0)
