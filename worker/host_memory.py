"""Memory of the host that a process may still use: of the machine, and of its control group."""

from pathlib import Path

_HOST = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> float | None:
    """Bytes that are free on the host and within the limit of the control group (v2); None if unknown."""
    available = _told(_HOST, "MemAvailable:", unit=1024)
    limit, used = (_told(_CGROUP / name, "", unit=1) for name in ("memory.max", "memory.current"))
    cached = _told(_CGROUP / "memory.stat", "inactive_file ", unit=1) or 0
    of_group = None if limit is None or used is None else limit - used + cached
    return min((float(each) for each in (available, of_group) if each is not None), default=None)


def _told(path: Path, name: str, *, unit: int) -> int | None:
    """The number behind a name in a file of the kernel's; None if it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    numbers = [line.removeprefix(name).split()[0] for line in lines if line.startswith(name)]
    return int(numbers[0]) * unit if numbers and numbers[0].isdigit() else None
