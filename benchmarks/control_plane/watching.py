"""Thousands who wait for one job: what each costs, how soon all have seen a change, and what others notice of them."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from sqlalchemy import text

from benchmarks.control_plane.measuring import cpu_seconds, measure, request
from benchmarks.control_plane.servers import Service
from benchmarks.large_queue import job_id
from service import jobs
from service.jobs import Fence
from service.security import create_key

_WATCHED = 20
"""The number of the job, which runs."""
_PROCESSES = 2
"""Of watchers."""
_CHANGES = 10


def watching(service: Service, *, seconds: float) -> Iterator[str]:
    """Streams of one process, then long polls, then some of both beside another key that polls."""
    with service.database.transaction() as session:
        _, key = create_key(session, user_name="watcher", role="viewer")
    caller = {"Authorization": f"Bearer {key}"}
    path = f"/v1/jobs/{job_id(_WATCHED)}"
    stream = request("GET", f"{path}/events", caller | {"Accept": "text/event-stream"})
    poll = request("GET", path, caller | {"If-None-Match": '"ETAG"', "Prefer": "wait=60"})
    with _watchers(service, [stream] * 10 + [poll] * 10) as warm:
        warm.change()
    for name, each in (("streams", stream), ("long polls", poll)):
        for count in (1_000, 5_000):
            yield from _crowd(service, f"{count:,} {name}", [each] * count, seconds=seconds)
    yield from _beside(service, [stream] * 500 + [poll] * 500, seconds=seconds)


def _crowd(service: Service, name: str, requests: list[str], *, seconds: float) -> Iterator[str]:
    alone = _transactions(service, seconds=seconds)
    rss = _rss(service)
    with _watchers(service, requests) as crowd:
        kib = (_rss(service) - rss) / len(requests) / 1024
        cpu = cpu_seconds(service.processes["API"])
        idle = _transactions(service, seconds=seconds)
        busy = (cpu_seconds(service.processes["API"]) - cpu) / seconds
        yield f"{name:20} {kib:5.1f} KiB each; {idle} transactions in {seconds:g} s (without them {alone}), {busy:.0%} of a core"
        cpu = cpu_seconds(service.processes["API"])
        times = sorted(each for _ in range(_CHANGES) for each in crowd.change(when_quiet=True))
        cpu = (cpu_seconds(service.processes["API"]) - cpu) / len(times) * 1e6
        yield (
            f"{'':20} a change is seen after p50 {_percentile(times, 50):.0f}, p99 {_percentile(times, 99):.0f}, "
            f"at most {times[-1] * 1000:.0f} ms; CPU each, in µs: API {cpu:.0f}"
        )


def _beside(service: Service, requests: list[str], *, seconds: float) -> Iterator[str]:
    with service.database.transaction() as session:
        _, key = create_key(session, user_name="somebody else", role="viewer")
    polls = [request("GET", f"/v1/jobs/{job_id(_WATCHED + 1)}", {"Authorization": f"Bearer {key}"})]

    def others(when: str) -> str:
        rate = measure(service.port, polls, expect=200, servers=service.processes, seconds=seconds)
        return f"another key's polls, {when:38} {rate}"

    yield others("alone")
    with _watchers(service, requests) as crowd:
        yield others(f"beside {len(requests):,} watchers")
        done = threading.Event()

        def change() -> None:
            while not done.wait(1):
                crowd.change()

        changing = threading.Thread(target=change)
        changing.start()
        yield others("and a change for all every second")
        done.set()
        changing.join()


class _Crowd:
    """Watchers that wait for changes."""

    def __init__(self, service: Service, processes: "list[subprocess.Popen[str]]") -> None:
        self._service, self._processes = service, processes

    def change(self, *, when_quiet: bool = False) -> list[float]:
        """Changes the job; returns after how many seconds from before the commit each had seen it."""
        if when_quiet:
            _until_quiet(self._service)
        for each in self._processes:
            _say(each, "next")
        with self._service.database.transaction() as session:
            fence = Fence(job_id(_WATCHED), jobs.get(session, job_id(_WATCHED)).attempt)
            jobs.record_progress(session, fence, {"phase": "student", "step": 1}, milestone="one step")
            before_commit = time.monotonic()
        return [at - before_commit for each in self._processes for at in json.loads(_hear(each))]


@contextmanager
def _watchers(service: Service, requests: list[str]) -> Iterator[_Crowd]:
    with service.database.transaction() as session:
        version = jobs.get(session, job_id(_WATCHED)).version
    program = Path(__file__).with_name("watcher.py")
    command = [sys.executable, "-I", "-S", str(program), "127.0.0.1", str(service.port)]
    with ExitStack() as running:
        processes = []
        for part in range(_PROCESSES):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            running.callback(process.wait)
            running.callback(process.kill)
            _say(process, json.dumps({"requests": requests[part::_PROCESSES], "version": str(version)}))
            processes.append(process)
        for process in processes:
            _hear(process)
        _until_quiet(service)
        yield _Crowd(service, processes)
    _until_quiet(service)


def _until_quiet(service: Service) -> None:
    """Waits until the API has let everybody in, or out."""
    while True:
        before = cpu_seconds(service.processes["API"])
        time.sleep(1)
        if cpu_seconds(service.processes["API"]) - before < 0.1:
            return


def _transactions(service: Service, *, seconds: float) -> int:
    """Transactions that the database has committed meanwhile, beside those that count."""

    def committed() -> int:
        with service.database.transaction() as session:
            return int(session.scalar(text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")) or 0)

    time.sleep(2)  # a server process reports what it did a second later
    before = committed()
    time.sleep(seconds)
    return committed() - before - 1


def _rss(service: Service) -> int:
    return int(psutil.Process(service.processes["API"]).memory_info().rss)


def _percentile(times: list[float], percent: int) -> float:
    """In milliseconds."""
    return times[len(times) * percent // 100] * 1000


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of watchers has ended")
    return line
