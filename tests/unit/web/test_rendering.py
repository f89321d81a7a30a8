"""What pages load, and how they write figures."""

import hashlib
import re
from importlib import resources

import pytest

from service.web.rendering import duration, moment, size, static_files

UPLOT = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
"""The SHA-256 of uPlot 1.6.32's dist/uPlot.iife.min.js, as it was published."""


def test_the_charts_library_is_what_was_published() -> None:
    assert hashlib.sha256(static_files()["uplot/uPlot.js"]).hexdigest() == UPLOT


def test_every_file_that_a_template_loads_is_there() -> None:
    templates = resources.files("service.web") / "templates"
    texts = [entry.read_text() for entry in templates.iterdir()]
    loaded = {name for text in texts for name in re.findall(r'\{\{ static \}\}/([^"]+)"', text)}
    assert loaded
    assert loaded <= static_files().keys()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min"), (273_600, "3 d 4 h")],
)
def test_a_duration_has_two_units_at_most(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**31, "2.0 GiB"), (2**52, "4096 TiB")],
)
def test_a_size_is_in_powers_of_1024(num_bytes: int | None, words: str) -> None:
    assert size(num_bytes) == words


def test_a_time_is_told_in_utc() -> None:
    assert moment("2026-11-02T11:30:02+02:00") == '<time datetime="2026-11-02T09:30:02+00:00">2026-11-02 09:30 UTC</time>'
