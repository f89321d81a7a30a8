"""Kills a process of the service at a named point, when it is told to: imported by every Python that has this folder on its path.

``STILLHOUSE_CRASH_POINTS`` is a folder. A file in it that is named for a point arms that point: the first process of the service
that gets there takes the file away, and dies by SIGKILL. The service itself knows nothing of it: the functions are wrapped once
their modules are imported, in the children of the trainers' fork server too.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsIndex

POINTS: dict[str, tuple[str, str, str]] = {
    "before the claim": ("service.scheduling.claim", "claim", "before"),
    "before the claim is committed": ("service.scheduling.claim", "claim", "after"),
    "after the claim": ("worker.host.supervisor", "Supervisor.run", "before"),
    "before the first file of an attempt": ("worker.host.supervisor", "Supervisor._attempt", "before"),
    "before the checkpoint is renamed": ("worker.training.checkpoint", "sync", "after file"),
    "after the checkpoint is renamed": ("worker.training.checkpoint", "sync", "before folder"),
    "before a checkpoint is uploaded": ("worker.host.recorder", "Recorder._store_checkpoint", "before"),
    "in the middle of an upload": ("service.store", "_create", "after"),
    "after a checkpoint is uploaded": ("worker.host.recorder", "Recorder._store_checkpoint", "after"),
    "after the checkpoint is recorded": ("worker.host.recorder", "Recorder.write", "after"),
    "before the results are published": ("worker.host.settlement", "Settlement.settle", "before"),
    "in the final commit": ("service.jobs.attempts", "succeed", "after"),
    "after the final commit": ("worker.host.settlement", "Settlement.settle", "after"),
    "before a submission is committed": ("service.jobs.submission", "submit", "after"),
    "after a submission is committed": ("service.submission", "submit", "after"),
    "in a sweep": ("service.scheduling.sweep", "sweep", "after"),
}
"""By the point's name: a module, what in it is wrapped, and when it kills."""


def _is_armed(point: str) -> bool:
    try:
        Path(os.environ["STILLHOUSE_CRASH_POINTS"], point).unlink()
    except FileNotFoundError:
        return False
    return True


def _wrapped(function: Callable[..., Any], points: dict[str, str]) -> Callable[..., Any]:
    """``points`` are names of points by when they kill."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kind = ""
        if any(" " in when for when in points):
            kind = " folder" if Path(args[0]).is_dir() else " file"
        for when in ("before", f"before{kind}"):
            if when in points and _is_armed(points[when]):
                os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        for when in ("after", f"after{kind}"):
            if when in points and _is_armed(points[when]):
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def _wrap(module: ModuleType) -> None:
    by_place: dict[str, dict[str, str]] = {}
    for point, (name, place, when) in POINTS.items():
        if name == module.__name__:
            by_place.setdefault(place, {})[when] = point
    for place, points in by_place.items():
        *path, last = place.split(".")
        owner: Any = module
        for step in path:
            owner = getattr(owner, step)
        setattr(owner, last, _wrapped(getattr(owner, last), points))


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps what a module defines before anybody imports it from there."""

    def __init__(self) -> None:
        self._modules = {name for name, _, _ in POINTS.values()}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: ModuleType) -> None:
                execute(module)
                _wrap(module)

            spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def _sleep(seconds: "float | SupportsIndex") -> None:
    select.select((), (), (), float(seconds))


if "STILLHOUSE_CRASH_POINTS" in os.environ:
    sys.meta_path.insert(0, _Finder())
if "faketime" in os.environ.get("LD_PRELOAD", ""):
    time.sleep = _sleep  # libfaketime 0.9.10 refuses clock_nanosleep on a monotonic clock that it leaves alone (EINVAL)
