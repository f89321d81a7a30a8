"""What networks cost to run: latency by size of batch, throughput, operations and memory.

Invariant: networks are measured in turns, so that a busy moment of the machine affects all of them, and the time that it takes is
bounded, whatever the networks are.
"""

import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from service.spec.cards.speed import BatchSpeed, SpeedCard
from worker.data.tensors import Inputs, home_of, num_bytes, num_rows, select_rows
from worker.eval_mode import in_eval_mode
from worker.evaluation.live_tensors import LiveTensors, tensors_of

ALWAYS = (1, 64)
"""Batches that every report has."""
_FURTHER = (8, 256)
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 40
_MOST_ROUNDS_OF_BATCHES = 12
"""Of several samples, whose passes vary less."""


@dataclass(frozen=True)
class Subject:
    """A network that is measured, with some inputs (N, …) on its device."""

    network: nn.Module
    inputs: Inputs
    has_integer_weights: bool = False


def batch_sizes(most: int) -> list[int]:
    """The sizes of batches that are measured, where no more than ``most`` samples are evaluated at once."""
    return sorted({*ALWAYS, *(size for size in _FURTHER if size <= most)})


def measure_speed(subjects: Mapping[str, Subject], *, batches: Collection[int], seconds: float) -> dict[str, SpeedCard]:
    """Measures each network with each size of batches, which takes about ``seconds`` at most, but three passes of each.

    Sizes beyond 64 that do not fit into the device's memory are left out.
    """
    milliseconds: dict[str, dict[int, list[float]]] = {name: {} for name in subjects}
    for size in sorted(batches):
        try:
            timed = _time(subjects, size, seconds=seconds / len(batches))
        except torch.OutOfMemoryError:
            if size <= max(ALWAYS):
                raise
            break
        for name, values in timed.items():
            milliseconds[name][size] = values
    return {name: _card(subject, milliseconds[name]) for name, subject in subjects.items()}


def _time(subjects: Mapping[str, Subject], size: int, *, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of passes of each network, with batches of one size."""
    batches = {name: _resized(subject.inputs, size) for name, subject in subjects.items()}
    found: dict[str, list[float]] = {name: [] for name in subjects}
    deadline = time.monotonic() + seconds
    most = _MOST_ROUNDS if size == 1 else min(_MOST_ROUNDS, _MOST_ROUNDS_OF_BATCHES)
    for round_index in range(1 + most):
        for name, subject in subjects.items():
            with in_eval_mode(subject.network):
                elapsed = _time_once(subject.network, batches[name])
            if round_index > 0:  # the first pass allocates memory and chooses kernels
                found[name].append(elapsed)
        if round_index >= _LEAST_ROUNDS and time.monotonic() > deadline:
            break
    return found


def _card(subject: Subject, milliseconds: Mapping[int, Sequence[float]]) -> SpeedCard:
    each = [_batch_speed(size, values) for size, values in milliseconds.items()]
    best = max(each, key=lambda speed: speed.samples_per_second).batch
    weight_bytes = sum(tensor.nbytes for tensor in tensors_of(subject.network))
    flops, peak = _profile(subject, 1)
    return SpeedCard(
        batches=each,
        best_batch=best,
        flops=None if subject.has_integer_weights else flops,
        weight_bytes=weight_bytes,
        peak_bytes=weight_bytes + peak,
        peak_bytes_best_batch=weight_bytes + (peak if best == 1 else _profile(subject, best)[1]),
    )


def _batch_speed(size: int, milliseconds: Sequence[float]) -> BatchSpeed:
    median = statistics.median(milliseconds)
    return BatchSpeed(
        batch=size,
        rounds=len(milliseconds),
        p50_ms=median,
        p95_ms=float(np.percentile(milliseconds, 95)),
        samples_per_second=1_000 * size / max(median, 1e-6),
    )


def _profile(subject: Subject, size: int) -> tuple[int, int]:
    """Operations of a forward pass, and the most bytes of inputs and other tensors beside the weights."""
    inputs, live = _resized(subject.inputs, size), LiveTensors([subject.network])
    with in_eval_mode(subject.network), live:
        subject.network(inputs)
    return live.flops, int(live.peak) + num_bytes(inputs)


def _resized(inputs: Inputs, count: int) -> Inputs:
    """Repeats or cuts inputs (N, …) to (``count``, …)."""
    return select_rows(inputs, torch.arange(count, device=home_of(inputs)) % num_rows(inputs))


def _time_once(network: nn.Module, inputs: Inputs) -> float:
    device = home_of(inputs)
    _synchronise(device)
    started = time.perf_counter()
    network(inputs)
    _synchronise(device)
    return (time.perf_counter() - started) * 1_000


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
