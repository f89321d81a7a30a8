"""The kernel's own count of its kills for want of memory."""

from pathlib import Path

import pytest

from worker.host import memory_kills
from worker.host.memory_kills import MemoryKills, count_memory_kills

EVENTS = "low 0\nhigh 0\nmax 4\noom 3\noom_kill 2\noom_group_kill 0\n"
HOST = "nr_free_pages 1\noom_kill 7\ndrop_pagecache 0\n"


def counted(folder: Path, *, cgroup: str | None, events: str | None, host: str | None) -> int | None:
    files = {"cgroup": cgroup, "fs/team/worker/memory.events": events, "vmstat": host}
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    return count_memory_kills(folder / "cgroup", folder / "fs", folder / "vmstat")


def test_those_in_its_own_control_group_are_counted_alone(tmp_path: Path) -> None:
    assert counted(tmp_path, cgroup="0::/team/worker\n", events=EVENTS, host=HOST) == 2


def test_without_a_counter_of_the_group_those_of_the_host_are_counted(tmp_path: Path) -> None:
    assert counted(tmp_path, cgroup="4:memory:/old\n0::/\n", events=None, host=HOST) == 7


def test_where_the_system_counts_none_it_says_so(tmp_path: Path) -> None:
    assert counted(tmp_path, cgroup=None, events=None, host=None) is None


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
