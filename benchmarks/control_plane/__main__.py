"""How fast the service answers, beside an empty route and Ray's job server: ``python -m benchmarks.control_plane``

One API process with PostgreSQL and Valkey of its own over a thousand made-up jobs, eight connections, each waiting for an answer
before it asks again, by one light process. An empty route is a FastAPI application without middleware under the same settings of
uvicorn. Ray's job server (``ray[default]``, in a virtual environment that is made for it) is polled for a finished job. Beside
each rate stands the CPU time that a request took of the servers, which a busy machine changes little.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.control_plane import reads, servers, watching, writes
from benchmarks.control_plane.measuring import CONNECTIONS, Rate, measure, request

SECTIONS: dict[str, Callable[..., dict[str, Rate]]] = {
    "reads": reads.reads,
    "submissions": writes.submissions,
    "supervisors": writes.supervisors,
}
"""Each measures one service, alone: ``section(service, seconds=…)``."""
WATCHING = "watching"
"""The section that has sentences instead of rates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", default=[*SECTIONS, WATCHING], help=f"of {', '.join([*SECTIONS, WATCHING])}; all by default"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measure")
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument(
        "--ray-environment", type=Path, default=Path(tempfile.gettempdir()) / "stillhouse-ray", help="made if it is not there"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stillhouse-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        empty = _empty_route(folder, seconds=options.seconds)
        _show("empty route", empty, empty, None)
        polls_of_ray = None if options.without_ray else _ray(options.ray_environment, folder, seconds=options.seconds)
        if polls_of_ray is not None:
            _show("Ray's job server, poll", polls_of_ray, empty, polls_of_ray)
        with servers.service(folder) as service:
            for section in (each for name, each in SECTIONS.items() if name in options.sections):
                for measured, rate in section(service, seconds=options.seconds).items():
                    _show(measured, rate, empty, polls_of_ray)
            if WATCHING in options.sections:
                for sentence in watching.watching(service, seconds=options.seconds):
                    print(sentence, flush=True)


def _empty_route(folder: Path, *, seconds: float) -> Rate:
    with servers.empty_route(folder) as (port, pid):
        return measure(port, [request("GET", "/")] * CONNECTIONS, expect=200, servers={"API": pid}, seconds=seconds)


def _ray(environment: Path, folder: Path, *, seconds: float) -> Rate:
    with servers.ray(environment, folder) as (port, pid, job_id):
        polls = [request("GET", f"/api/jobs/{job_id}")] * CONNECTIONS
        return measure(port, polls, expect=200, servers={"dashboard": pid}, seconds=seconds)


def _show(name: str, rate: Rate, empty: Rate, polls_of_ray: Rate | None) -> None:
    ratios = f"{rate.per_second / empty.per_second:5.2f} of the empty route"
    if polls_of_ray is not None:
        ratios += f", {rate.per_second / polls_of_ray.per_second:5.1f} times Ray"
    print(f"{name:24} {rate}   {ratios}", flush=True)


if __name__ == "__main__":
    main()
