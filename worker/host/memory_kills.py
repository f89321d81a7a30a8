"""How often the kernel has killed a process for want of memory: what tells such a death from a kill by anybody else."""

from pathlib import Path

_CGROUP = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_HOST = Path("/proc/vmstat")


def count_memory_kills(cgroup: Path = _CGROUP, cgroup_root: Path = _CGROUP_ROOT, host: Path = _HOST) -> int | None:
    """Reads the counter of this process's control group, or without one (cgroup v2) that of the host; None if there is none.

    (Linux: Documentation/admin-guide/cgroup-v2.rst, memory.events; mm/vmstat.c.)
    """
    own = _read(cgroup).partition("0::/")[2].partition("\n")[0]
    for counters in (cgroup_root / own / "memory.events", host):
        for line in _read(counters).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
