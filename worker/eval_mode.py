"""Evaluation mode of a network, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network into ``eval()`` without gradients, and restores the mode of each of its modules afterwards."""
    were_training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in were_training.items():
            module.training = was_training
