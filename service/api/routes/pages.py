"""Pages of the queue and of a job. They show what the routes of ``/v1`` answer, by the same functions."""

import json
from itertools import chain
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import queries
from service.api.dependencies import ServicesOf, Viewer
from service.api.page_route import PageRoute, page
from service.api.parameters import JobId
from service.api.responses.jobs import JobView, explanation, job_view
from service.api.responses.records import artifact_view, event_view
from service.api.routes import queue
from service.lifecycle import FINAL, Status
from service.security import Caller
from service.spec.differences import differing_fields, value_text

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_PHASES = ("checking", "teacher", "cache", "student", "control", "evaluation", "export")
_EVENT_TYPES = [
    *("progress", "metrics", "checkpoint"),
    *(f"job.{status}" for status in Status),
    *(f"job.{what}" for what in ("check_lost", "check_started", "edited", "promoted", "stop_requested", "stop_withdrawn")),
    *("job.note", "job.unchecked", "job.warning"),
]
"""What a browser hears of an event stream, which it must be told by name."""
_MAX_EVENTS = 500
_RECENT = 10
_MAX_COMPARED = 20


@router.get("/")
async def queue_page(request: Request, caller: Viewer, services: ServicesOf) -> Response:
    """What runs, what waits, and who used how much."""
    running = await run_in_threadpool(queue.get_queue, caller, services, None)
    usage = await run_in_threadpool(queue.get_usage, caller, services, None)
    workers = await run_in_threadpool(queue.list_workers, caller, services)
    ended = queries.JobFilter(statuses=tuple(sorted(FINAL)))
    recent = json.loads(await services.reads.page(ended, owner=None, after=None, limit=_RECENT))["data"]
    hosts = {worker.id: worker.host for worker in workers.data}
    return page(request, caller, "queue.html", queue=running, usage=usage.data, hosts=hosts, recent=recent, workers=workers.data)


@router.get("/jobs")
async def jobs_page(
    request: Request,
    caller: Viewer,
    services: ServicesOf,
    status: Annotated[str, Query(max_length=20)] = "",
    owner: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str | None, Query(pattern=r"^job_[0-9a-z]{26}$")] = None,
) -> Response:
    """All jobs, newest first, each with a box to compare it."""
    statuses = (status,) if status in set(Status) else ()
    wanted = queries.JobFilter(statuses=statuses)
    found = json.loads(await services.reads.page(wanted, owner=owner or None, after=after, limit=50))
    chosen = {"status": status, "owner": owner}
    return page(
        request, caller, "jobs.html", jobs=found["data"], has_more=found["has_more"], chosen=chosen, statuses=list(Status)
    )


@router.get("/jobs/{job_id}")
def job_page(request: Request, job_id: JobId, caller: Viewer, services: ServicesOf) -> Response:
    """One job: its progress, curves, log, history, spec and files."""

    def read(session: Session) -> dict[str, Any]:
        row = queries.job_row(session, job_id, services.queue_status_cache)
        return {
            "job": job_view(row),
            "explanation": explanation(session, row, services.queue_status_cache),
            "events": [event_view(event) for event in queries.timeline(session, job_id, limit=_MAX_EVENTS)],
            "last_seq": row.job.last_event_seq,
            "artifacts": [artifact_view(artifact) for artifact in queries.artifacts(session, job_id)],
        }

    found = services.database.run(read)
    job: JobView = found["job"]
    spec = yaml.safe_dump(job.spec, sort_keys=False, allow_unicode=True, width=100)
    names = {artifact.name for artifact in found["artifacts"]}
    return page(
        request,
        caller,
        "job.html",
        **found,
        spec=spec,
        actions=_actions(job, caller),
        phases=_phases(job),
        event_types=" ".join(_EVENT_TYPES),
        has_report="report.html" in names,
    )


@router.get("/compare")
def compare_page(
    request: Request,
    caller: Viewer,
    services: ServicesOf,
    job: Annotated[list[str] | None, Query(max_length=_MAX_COMPARED)] = None,
) -> Response:
    """Several jobs side by side: their figures, the fields in which their specs differ, the curves of their students."""

    def read(session: Session) -> list[JobView]:
        return [job_view(queries.job_row(session, job_id, services.queue_status_cache)) for job_id in dict.fromkeys(job or [])]

    jobs = services.database.run(read)
    results = {each.id: _figures(each.result or {}) for each in jobs}
    names = list(dict.fromkeys(chain(*results.values())))
    fields = differing_fields([each.spec for each in jobs])
    differences = [(pointer, list(map(value_text, values))) for pointer, values in fields.items()]
    return page(request, caller, "compare.html", jobs=jobs, results=results, names=names, differences=differences)


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a job's result; those of its student are by their own names."""
    every = {**(result.get("student") or {}), **result}
    return {name: value for name, value in every.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _actions(job: JobView, caller: Caller) -> list[str]:
    """What this caller may do with the job in its state."""
    if caller.role == "viewer" or (caller.role != "admin" and caller.user_name != job.owner) or job.terminal:
        return []
    found = []
    if job.stop_requested is None and job.status in {Status.QUEUED, Status.RUNNING}:
        found.append("pause")
    if job.status == Status.PAUSED or job.stop_requested == "pause":
        found.append("resume")
    return [*found, "cancel"] if job.stop_requested != "cancel" else found


def _phases(job: JobView) -> list[tuple[str, str, float]]:
    """Each phase of a job with its state (done, current or ahead) and its fraction."""
    if job.progress is None:
        return [(phase, "ahead", 0.0) for phase in _PHASES]
    at = _PHASES.index(job.progress.phase) if job.progress.phase in _PHASES else 0
    is_done = job.status == Status.SUCCEEDED
    states = ["done" if is_done or index < at else "current" if index == at else "ahead" for index in range(len(_PHASES))]
    return [
        (phase, state, job.progress.fraction or 0.0 if state == "current" else float(state == "done"))
        for phase, state in zip(_PHASES, states, strict=True)
    ]
