"""A network as it is used rather than trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """No dropout, no moving batch-norm statistics, no gradients."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
