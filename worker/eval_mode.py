"""Evaluation mode of a network, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network into ``eval()`` without gradients, and restores its mode afterwards."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
