"""One measure: many requests by a process of its own, and what they cost each server in CPU time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

CONNECTIONS = 8


@dataclass(frozen=True)
class Rate:
    """What came of one measure."""

    answers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    """CPU time of each server by request, in microseconds, its children's with it."""

    @classmethod
    def of(cls, done: int, seconds: float, times: Sequence[float], cpu_us: dict[str, float]) -> "Rate":
        """Of so many things done in ``seconds``; ``times`` are seconds, of the same things or of others meanwhile."""
        p50, p99 = (sorted(times)[len(times) * percent // 100] * 1000 for percent in (50, 99))
        return cls(done, done / seconds, p50, p99, cpu_us)

    def __str__(self) -> str:
        cpu = ", ".join(f"{name} {value:.0f}" for name, value in self.cpu_us.items())
        return f"{self.per_second:8,.0f}/s   p50 {self.p50_ms:6.2f}   p99 {self.p99_ms:6.2f} ms   CPU each, in µs: {cpu}"


def request(method: str, path: str, headers: dict[str, str] | None = None, body: str = "") -> str:
    """One request as it goes over the wire."""
    fields = {"Host": "localhost"} | (headers or {}) | ({"Content-Length": str(len(body.encode()))} if body else {})
    return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n" + body


def measure(port: int, requests: Sequence[str], *, expect: int, servers: dict[str, int], seconds: float) -> Rate:
    """Sends each request over and over on a connection of its own. ``servers``: names and process ids.

    Raises:
        RuntimeError: some answer has another status than ``expect``.
    """
    before = {name: cpu_seconds(pid) for name, pid in servers.items()}
    found = json.loads(
        subprocess.run(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("requester.py")), "127.0.0.1", str(port), str(seconds)],
            input="\n".join(map(json.dumps, requests)),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    )
    if found["statuses"] != {str(expect): found["answers"]}:
        raise RuntimeError(f"expected {expect} alone, and these came: {found['statuses']}")
    cpu = {name: (cpu_seconds(pid) - before[name]) / found["answers"] * 1e6 for name, pid in servers.items()}
    return Rate(found["answers"], found["answers"] / found["seconds"], found["p50"], found["p99"], cpu)


def cpu_seconds(pid: int) -> float:
    """Of a process and its children, those that have ended among them."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children(recursive=True)))
