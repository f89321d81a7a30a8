"""Routes of a job's records: events, metrics, log, artifacts, report."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import queries
from service.api.bodies import StrictRoute
from service.api.conditions import event_id
from service.api.dependencies import Services, ServicesOf, Viewer
from service.api.files import STORED_FILE_RESPONSES, RangeRequest, file_response, file_responses, ranged_response
from service.api.negotiation import preferred
from service.api.parameters import Accept, FileName, JobId, LastEventId, PageSize, Range
from service.api.problems import described
from service.api.responses.records import ArtifactList, EventPage, MetricList, MetricView, artifact_view, event_view
from service.api.streams import event_messages, log_messages
from service.api.waiting import StreamResponse
from service.errors import InvalidRequest, NotFound, RangeNotSatisfiable
from service.store import StoredFile

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=StrictRoute)

_JSON, _TEXT, _PAGE, _STREAM = "application/json", "text/plain", "text/html", "text/event-stream"
_MAX_NAMES = 200
_STRING = {"type": "string"}
_LOG = {_TEXT: {"schema": _STRING, "example": "job job_01k5zq3v7m8n9p0q1r2s3t4v5w, attempt 1, on cpu\n"}}
_LIVE_EVENTS = {"schema": _STRING, "example": 'event: checkpoint\ndata: {"seq": 7, "type": "checkpoint", …}\nid: 7\n\n'}
_LIVE_LOG = {"schema": _STRING, "example": "event: log\ndata: job job_01k5zq3v7m8n9p0q1r2s3t4v5w, attempt 1, on cpu\nid: 54\n\n"}
_REPORT = {
    _JSON: {"schema": {"$ref": "#/components/schemas/Report"}},
    _PAGE: {"schema": _STRING, "example": "<!doctype html><title>digits, a CNN to a fiftieth of its size</title>…"},
}


@router.get(
    "/events",
    response_model=EventPage,
    responses={200: {"content": {_STREAM: _LIVE_EVENTS}}, **described(InvalidRequest, NotFound)},
)
async def list_events(
    job_id: JobId,
    caller: Viewer,
    services: ServicesOf,
    response: Response,
    after: Annotated[int, Query(ge=0, lt=2**63, description="The last `seq` seen.")] = 0,
    limit: PageSize = 1000,
    accept: Accept = None,
    last_event_id: LastEventId = None,
) -> Any:
    """Returns the events of the job. With `Accept: text/event-stream` they are streamed live, up to its final state."""

    def read() -> EventPage:
        found, has_more = services.database.run(lambda session: queries.events(session, job_id, after=after, limit=limit))
        return EventPage(data=[event_view(event) for event in found], has_more=has_more)

    if preferred(accept, (_JSON, _STREAM)) == _STREAM:
        start = event_id(last_event_id) if last_event_id else after
        return StreamResponse(services.watches, job_id, caller.key_id, event_messages, position=start)
    response.headers["Vary"] = "Accept"
    return await run_in_threadpool(read)


@router.get("/metrics", responses=described(InvalidRequest, NotFound))
def list_metrics(
    job_id: JobId,
    _caller: Viewer,
    services: ServicesOf,
    names: Annotated[
        list[str] | None, Query(max_length=_MAX_NAMES, description="Which metrics, repeated or separated by commas.")
    ] = None,
    max_points: Annotated[int | None, Query(ge=2, le=100_000, description="Thins each metric; first and last stay.")] = None,
) -> MetricList:
    """Returns the points of each metric as (step, value)."""
    wanted = [name.strip() for text in names or [] for name in text.split(",") if name.strip()]
    if len(wanted) > _MAX_NAMES:
        raise InvalidRequest(f"{len(wanted)} metrics are named; at most {_MAX_NAMES} may be, or none for all", param="names")
    series = services.database.run(lambda session: queries.metrics(session, job_id, names=wanted, max_points=max_points))
    return MetricList(data=[MetricView(name=name, points=points) for name, points in series.items()])


@router.get(
    "/logs",
    response_class=Response,
    responses={
        200: {"description": "The log.", "content": {**_LOG, _STREAM: _LIVE_LOG}},
        206: {"description": "The part that `Range` names.", "content": _LOG},
        **described(InvalidRequest, NotFound, RangeNotSatisfiable),
    },
)
async def get_log(
    job_id: JobId,
    request: Request,
    caller: Viewer,
    services: ServicesOf,
    tail: Annotated[int | None, Query(ge=0, le=1_000_000, description="The last so many lines.")] = None,
    accept: Accept = None,
    range_header: Range = None,
    last_event_id: LastEventId = None,
) -> Any:
    """Returns the log of the job as text. With `Accept: text/event-stream` it is streamed live; the ids are byte offsets."""

    def measure(session: Session) -> tuple[int, int]:
        size = queries.log_size(session, job_id)
        return size, 0 if tail is None else min(size, queries.log_tail_start(session, job_id, lines=tail))

    async def read(start: int, length: int) -> Iterable[bytes]:
        begin = first + start
        log = partial(queries.log_bytes, job_id=job_id, start=begin, end=begin + length)
        return [await run_in_threadpool(services.database.run, log)]

    size, first = await run_in_threadpool(services.database.run, measure)
    if preferred(accept, (_TEXT, _STREAM)) == _STREAM:
        start = event_id(last_event_id) if last_event_id else first
        return StreamResponse(services.watches, job_id, caller.key_id, log_messages, position=start)
    return await ranged_response(
        request,
        size=size - first,
        range_header=range_header,
        media_type="text/plain; charset=utf-8",
        headers={"Vary": "Accept"},
        read=read,
    )


@router.get("/artifacts", responses=described(NotFound))
def list_artifacts(job_id: JobId, _caller: Viewer, services: ServicesOf) -> ArtifactList:
    """Returns the files of the job."""
    files = services.database.run(lambda session: queries.artifacts(session, job_id))
    return ArtifactList(data=[artifact_view(file) for file in files])


@router.get("/artifacts/{name:path}", response_class=Response, responses=STORED_FILE_RESPONSES)
async def get_artifact(
    job_id: JobId, name: FileName, request: Request, _caller: Viewer, services: ServicesOf, range_request: RangeRequest
) -> Response:
    """Sends one file. `Range` and `If-None-Match` work; the ETag is its SHA-256. From S3: a redirect to a signed URL."""
    return await file_response(request, services, await _artifact(services, job_id, name), range_request)


@router.get("/report", response_class=Response, responses=file_responses(_REPORT))
async def get_report(
    job_id: JobId, request: Request, _caller: Viewer, services: ServicesOf, range_request: RangeRequest, accept: Accept = None
) -> Response:
    """Returns the report card of a job that has one, as JSON, or with `Accept: text/html` as a page."""
    name = "report.html" if preferred(accept, (_JSON, _PAGE)) == _PAGE else "report.json"
    response = await file_response(request, services, await _artifact(services, job_id, name), range_request, as_page=True)
    response.headers["Vary"] = "Accept"
    return response


async def _artifact(services: Services, job_id: str, name: str) -> StoredFile:
    found = await run_in_threadpool(services.database.run, partial(queries.artifact, job_id=job_id, name=name))
    return StoredFile(name=found.name, path=found.path, size=found.size, sha256=found.sha256, media_type=found.media_type)
