"""Memory is that of the machine, or what the tightest of the control groups around the process leaves of it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.host_memory import free_host_bytes, memory_limit_bytes

MIB = 2**20
NO_LIMIT = 9_223_372_036_854_771_712
"""How version 1 says that there is none."""


def host(folder: Path, *, cgroup: str, files: Mapping[str, object]) -> tuple[Path, Path]:
    """The folders of the kernel's files of a host with 1,000 MiB free, whose process is in these groups."""
    told = {"proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable: {1000 * 1024} kB", "proc/self/cgroup": cgroup}
    for name, content in (told | {f"groups/{name}": content for name, content in files.items()}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content}\n")
    return folder / "proc", folder / "groups"


V2 = {"memory.max": 600 * MIB, "memory.current": 500 * MIB, "memory.stat": f"anon 1\ninactive_file {100 * MIB}"}
V1 = {
    "memory.limit_in_bytes": 600 * MIB,
    "memory.usage_in_bytes": 500 * MIB,
    "memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MIB}",
}


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/", V2),
        ("0::/a/b", {"memory.max": "max", **{f"a/{name}": content for name, content in V2.items()}}),
        ("4:cpu,memory:/a\n0::/", {f"memory/a/{name}": content for name, content in V1.items()}),
        ("4:memory:/docker/of-the-host\n1:cpu:/", {f"memory/{name}": content for name, content in V1.items()}),
    ],
    ids=["v2", "a group around the own one", "v1", "v1, named as outside of the container"],
)
def test_a_control_group_limits_what_is_free(cgroup: str, files: dict[str, object], tmp_path: Path) -> None:
    folders = host(tmp_path, cgroup=cgroup, files=files)
    assert (free_host_bytes(*folders), memory_limit_bytes(*folders)) == (200 * MIB, 600 * MIB)


def test_the_tightest_of_several_groups_counts(tmp_path: Path) -> None:
    files = {f"a/{name}": content for name, content in V2.items()} | {"a/b/memory.max": 90 * MIB, "a/b/memory.current": 40 * MIB}
    folders = host(tmp_path, cgroup="0::/a/b", files=files)
    assert (free_host_bytes(*folders), memory_limit_bytes(*folders)) == (50 * MIB, 90 * MIB)


@pytest.mark.parametrize("files", [{}, {"memory.max": "max", "memory.current": MIB}, {"memory/memory.limit_in_bytes": NO_LIMIT}])
def test_without_a_limit_the_machine_counts(files: dict[str, object], tmp_path: Path) -> None:
    folders = host(tmp_path, cgroup="4:memory:/\n0::/", files=files)
    assert (free_host_bytes(*folders), memory_limit_bytes(*folders)) == (1000 * MIB, None)


def test_a_system_that_tells_nothing_has_no_known_memory(tmp_path: Path) -> None:
    assert (free_host_bytes(tmp_path, tmp_path), memory_limit_bytes(tmp_path, tmp_path)) == (None, None)
