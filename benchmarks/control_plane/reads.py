"""What people read most: a poll, a poll whose job has not changed, a page of a list."""

from benchmarks.control_plane.measuring import CONNECTIONS, Rate, measure, request
from benchmarks.control_plane.servers import Service
from benchmarks.large_queue import job_id
from service import jobs
from service.jobs import Fence
from service.security import create_key

_PROGRESS = {"phase": "student", "step": 120, "total_steps": 900, "epoch": 1, "fraction": 0.13, "samples_per_second": 812.5}


def reads(service: Service, *, seconds: float) -> dict[str, Rate]:
    """Eight people poll a running job each, of which each has a key; the list is of the newest jobs, which wait."""
    polled = [job_id(number) for number in range(1, CONNECTIONS + 1)]
    with service.database.transaction() as session:
        keys = [create_key(session, user_name=f"user {number}", role="viewer")[1] for number in range(1, CONNECTIONS + 1)]
        for each in polled:
            jobs.record_progress(session, Fence(each, 1), _PROGRESS)
        versions = [jobs.get(session, each).version for each in polled]
    callers = [{"Authorization": f"Bearer {key}"} for key in keys]
    paths = [f"/v1/jobs/{each}" for each in polled]
    requests = {
        "/healthz": (200, [request("GET", "/healthz")] * CONNECTIONS),
        "poll": (200, [request("GET", path, caller) for path, caller in zip(paths, callers, strict=True)]),
        "poll, 304": (
            304,
            [
                request("GET", path, caller | {"If-None-Match": f'"{version}"'})
                for path, caller, version in zip(paths, callers, versions, strict=True)
            ],
        ),
        "poll of a queued job": (
            200,
            [request("GET", f"/v1/jobs/{job_id(1000 - n)}", caller) for n, caller in enumerate(callers)],
        ),
        "list of 20": (200, [request("GET", "/v1/jobs?limit=20", caller) for caller in callers]),
        "lists of 20, by owner": (
            200,
            [request("GET", f"/v1/jobs?limit=20&owner=user%20{n}", caller) for n, caller in enumerate(callers, start=1)],
        ),
    }
    return {
        name: measure(service.port, sent, expect=status, servers=service.processes, seconds=seconds)
        for name, (status, sent) in requests.items()
    }
