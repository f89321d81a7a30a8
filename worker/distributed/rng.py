"""Every source of randomness of a training, and what makes it repeatable.

The order of the samples is a pure function of (seed, epoch), so it has no state at all. Dropout and initial weights draw
from the global generators, whose states a checkpoint holds.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Sets every global generator; ``seed`` is below 2³²."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def epoch_order(num_samples: int, *, seed: int, epoch: int, stream: int = 0) -> Tensor:
    """A permutation of the samples (N,), int64 on the CPU, computed from ``(seed, epoch, stream)`` alone."""
    # SeedSequence mixes them: neighbouring seeds and epochs give unrelated orders, (1, 2) another than (2, 1).
    mixed = numpy.random.SeedSequence([seed, epoch, stream] if stream else [seed, epoch]).generate_state(1, dtype=numpy.uint64)[0]
    return torch.randperm(num_samples, generator=torch.Generator().manual_seed(int(mixed >> 1)))


def generator_states(device: torch.device) -> dict[str, Any]:
    """The states of all global generators, for a checkpoint."""
    kind, keys, position, has_gauss, cached_gaussian = numpy.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(numpy.asarray(keys).astype(numpy.int64)), position, has_gauss, cached_gaussian),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_generators(states: dict[str, Any], device: torch.device) -> None:
    """Sets what :func:`generator_states` read."""
    random.setstate(states["python"])
    kind, keys, position, has_gauss, cached_gaussian = states["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype(numpy.uint32), position, has_gauss, cached_gaussian))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def preserved_generators(device: torch.device) -> Iterator[None]:
    """Leaves the global generators as they were before the block, whatever it draws."""
    states = generator_states(device)
    try:
        yield
    finally:
        restore_generators(states, device)


@contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """Has torch use deterministic kernels alone on a CPU, and restores its settings afterwards."""
    if device.type != "cpu":
        yield
        return
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill_memory = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill all new memory with NaN, to catch kernels that read it; no kernel in use does.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill_memory
