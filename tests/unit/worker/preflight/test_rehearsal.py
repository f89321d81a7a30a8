"""A rehearsal has no effect on what follows it in its process."""

import random
from pathlib import Path

import numpy
import pytest
import torch

from worker.preflight.rehearsal import rehearse


def drawn() -> tuple[float, float, float]:
    return random.random(), numpy.random.random(), float(torch.rand(()))


def test_a_process_draws_after_a_rehearsal_what_it_would_have_drawn_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    before = drawn()
    random.setstate(states[0])
    numpy.random.set_state(states[1])
    torch.set_rng_state(states[2])
    settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()
    rehearse(tmp_path)
    assert settings == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled())
    assert drawn() == before
    assert not caplog.records, "the check of the rehearsal passes"
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_asks_cuda_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, lambda *arguments, **_: asked.append(arguments))
    rehearse(tmp_path)
    assert asked == []
