"""The kernel's own count of its kills for want of memory."""

from pathlib import Path

import pytest

from worker.host import memory_kills
from worker.host.memory_kills import MemoryKills
from worker.host_memory import count_memory_kills

V2 = {"fs/team/worker/memory.events": "low 0\nhigh 0\nmax 4\noom 3\noom_kill 2\noom_group_kill 0\n"}
V1 = {"fs/memory/team/worker/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}
HOST = "nr_free_pages 1\noom_kill 7\ndrop_pagecache 0\n"


def counted(folder: Path, files: dict[str, str]) -> int | None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return count_memory_kills(folder / "proc", folder / "fs")


@pytest.mark.parametrize(
    ("groups", "counters"),
    [("0::/team/worker\n", V2), ("4:cpu,memory:/team/worker\n0::/\n", V1)],
    ids=["v2", "v1"],
)
def test_those_in_its_own_control_group_are_counted_alone(groups: str, counters: dict[str, str], tmp_path: Path) -> None:
    assert counted(tmp_path, {"proc/self/cgroup": groups, "proc/vmstat": HOST, **counters}) == 2


def test_without_a_counter_of_the_group_those_of_the_host_are_counted(tmp_path: Path) -> None:
    assert counted(tmp_path, {"proc/self/cgroup": "4:memory:/old\n0::/\n", "proc/vmstat": HOST}) == 7


def test_where_the_system_counts_none_it_says_so(tmp_path: Path) -> None:
    assert counted(tmp_path, {}) is None


def test_a_kill_is_a_new_one_for_some_seconds_and_then_one_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_kills, "_DYING_SECONDS", -1.0)  # each look is one after that time
    killed = [0]
    kills = MemoryKills(lambda: killed[-1])
    kills.look()
    assert not kills.may_be_new
    killed.append(1)
    kills.look()
    assert kills.may_be_new, "it may be the trainer's, which is dying"
    kills.look()
    assert not kills.may_be_new, "it was a spare process's, or another job's"
    assert MemoryKills(lambda: None).may_be_new
