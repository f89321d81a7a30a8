"""Clocks of single processes, by Debian's faketime: what a process reads is some hours off, how long it waits is not."""

import subprocess
from pathlib import Path


def faketime_library(program: str) -> str:
    """The library that ``faketime`` preloads."""
    command = [program, "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def with_own_clock(library: str, clock: Path) -> dict[str, str]:
    """The environment of a process that reads its clock's error from the file ``clock``, once a second."""
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else each wait for Python's own lock takes up to a second
        "NO_FAKE_STAT": "1",
    }
