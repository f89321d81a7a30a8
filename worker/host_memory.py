"""Memory of this host that a process may use, and the kernel's kills for want of it: of the machine, and of the control groups
around the process (v1 and v2).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60
"""From here on a limit of version 1 is none: it tells none as the greatest number of pages."""


class _Names(NamedTuple):
    """What a version of control groups calls its files, and the pages of files that it takes back when it needs them."""

    limit: str
    used: str
    cached: str
    events: str


_V2 = _Names("memory.max", "memory.current", "inactive_file ", "memory.events")
_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ", "memory.oom_control")


def free_host_bytes(proc: Path = _PROC, groups: Path = _GROUPS) -> float | None:
    """Bytes that are free on the host and within the limits of all control groups; None if unknown."""
    available = _told(proc / "meminfo", "MemAvailable:", unit=1024)
    found = [] if available is None else [float(available)]
    for folder, names in _own_groups(proc, groups):
        limit, used = (_told(folder / name, "", unit=1) for name in (names.limit, names.used))
        if limit is not None and used is not None and limit < _UNLIMITED:
            found.append(float(limit - used + (_told(folder / "memory.stat", names.cached, unit=1) or 0)))
    return min(found, default=None)


def memory_limit_bytes(proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """The lowest limit of the control groups; None without one."""
    limits = (_told(folder / names.limit, "", unit=1) for folder, names in _own_groups(proc, groups))
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


def count_memory_kills(proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """Processes that were killed in this process's control group, or without one on the host; None if the kernel does not tell.

    (Linux: Documentation/admin-guide/cgroup-v2.rst, memory.events; cgroup-v1/memory.rst, memory.oom_control; mm/vmstat.c.)
    """
    counters = [folder / names.events for folder, names in _own_groups(proc, groups)]
    counts = (_told(counter, "oom_kill ", unit=1) for counter in (*counters, proc / "vmstat"))
    return next((count for count in counts if count is not None), None)


def _own_groups(proc: Path, groups: Path) -> Iterator[tuple[Path, _Names]]:
    """The control groups of this process, from its own to the outermost that it sees; in a container that is the container's."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = groups, _V2
        elif "memory" in controllers.split(","):
            root, names = groups / "memory", _V1
        else:
            continue
        own = root / path.lstrip("/")
        yield from ((folder, names) for folder in (own, *own.parents) if folder == root or root in folder.parents)


def _told(path: Path, name: str, *, unit: int) -> int | None:
    """The number behind a name in a file of the kernel's; None if it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    numbers = [line.removeprefix(name).split()[0] for line in lines if line.startswith(name)]
    return int(numbers[0]) * unit if numbers and numbers[0].isdigit() else None
