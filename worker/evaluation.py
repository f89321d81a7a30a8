"""What a network does on data that it was not trained on: logits, accuracy, agreement, latency.

Invariant: measuring changes nothing. Networks run in ``eval()`` without gradients, and are given back in the mode that they
came in. N samples, B batch, C classes.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.precision import Precision
from worker.samples import Samples

EVALUATION_BATCH = 256
_LATENCY_ROUNDS = 30
_LATENCY_SECONDS = 2.0


@dataclass(frozen=True)
class Measure:
    """How well logits match the labels."""

    accuracy: float
    loss: float
    """Mean cross-entropy."""


def predict(
    network: nn.Module,
    samples: Samples,
    *,
    precision: Precision | None = None,
    between_batches: Callable[[int], None] | None = None,
) -> Tensor:
    """The network's logits (N, C) for all samples, in their order, in float32, on the samples' device.

    Without ``precision`` the forward pass is in float32 as well. ``between_batches`` is told
    how many samples are done, and may raise, to end it.
    """
    precision = precision or Precision(samples.device, None)
    pieces = []
    with in_eval_mode(network):
        for start in range(0, len(samples), EVALUATION_BATCH):
            with precision.forward_pass():
                pieces.append(network(samples.images_from(start, EVALUATION_BATCH)).to(torch.float32))
            if between_batches is not None:
                between_batches(min(start + EVALUATION_BATCH, len(samples)))
    return torch.cat(pieces)


def measure(logits: Tensor, labels: Tensor) -> Measure:
    """Accuracy and loss of logits (N, C) against labels (N,)."""
    labels = labels.to(logits.device)
    hits = (logits.argmax(dim=-1) == labels).sum()
    loss = functional.cross_entropy(logits.to(torch.float64), labels)
    # One transfer for both: on a GPU each is a wait for everything before it.
    count, mean_loss = torch.stack([hits.to(torch.float64), loss]).tolist()
    return Measure(accuracy=count / len(labels), loss=mean_loss)


def agreement(first: Tensor, second: Tensor) -> float:
    """Share of the samples for which two networks' logits (N, C) choose the same class."""
    return (first.argmax(dim=-1) == second.argmax(dim=-1)).double().mean().item()


def measure_latency(networks: Mapping[str, tuple[nn.Module, Tensor]], *, batch_size: int) -> dict[str, float]:
    """Median milliseconds of one forward pass of each network.

    The networks take turns, so that a busy moment of the machine falls on all of them.

    Args:
        networks: by name, the network and some images (N, C, H, W) on its device; repeated or cut to ``batch_size``.
    """
    batches = {
        name: (network, images.repeat(-(-batch_size // len(images)), 1, 1, 1)[:batch_size].contiguous())
        for name, (network, images) in networks.items()
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in networks}
    deadline = time.monotonic() + _LATENCY_SECONDS
    for round_index in range(_LATENCY_ROUNDS):
        for name, (network, images) in batches.items():
            with in_eval_mode(network):
                elapsed = _time_once(network, images)
            if round_index > 0:  # the first pass allocates memory and chooses kernels
                milliseconds[name].append(elapsed)
        if round_index >= 3 and time.monotonic() > deadline:
            break
    return {name: statistics.median(values) for name, values in milliseconds.items()}


def _time_once(network: nn.Module, images: Tensor) -> float:
    _wait_for(images.device)
    started = time.perf_counter()
    network(images)
    _wait_for(images.device)
    return (time.perf_counter() - started) * 1_000


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
