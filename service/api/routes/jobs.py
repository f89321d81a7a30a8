"""Routes of jobs: submit, read, edit, stop, delete."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import jobs, queries, submission
from service.api.bodies import StrictRoute, read_document, refuse_repeated
from service.api.conditions import is_unchanged, known_version, require_match, wait_seconds
from service.api.dependencies import Authorization, Member, Services, ServicesOf, Viewer
from service.api.parameters import IfMatch, IfNoneMatch, JobId, PageSize
from service.api.problems import described
from service.api.removal import remove_with_files
from service.api.responses.dry_run import WARNINGS_HEADER, warnings_header
from service.api.responses.jobs import CancelRequest, Explanation, JobEdit, JobPage, JobView, explanation, job_view
from service.errors import (
    CircularDependency,
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSpec,
    InvalidTransition,
    NotFound,
    PreconditionFailed,
    QueueLimitReached,
    RequestInFlight,
)
from service.lifecycle import Outcome, Priority, Status
from service.part_errors import Meaning, meaning_of
from service.queries import JobFilter, JobRow
from service.security import Caller
from service.sweeper import preempt
from service.tables import Job


class PollRoute(StrictRoute):
    """Passes a poll its parameters by itself: FastAPI's way to them took a quarter of its time. They are declared as always."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def poll(request: Request) -> Response:
            headers = request.headers
            refuse_repeated(headers)
            return await get_job(
                request.path_params["job_id"],
                headers.get("authorization"),
                request.app.state.services,
                headers.get("if-none-match"),
                headers.get("prefer"),
            )

        return poll


router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="A repeat with the same key and body returns the first job.",
    ),
]
_MAX_LABELS = 8
"""Each is a join of its own in the database."""
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"$ref": "#/components/schemas/JobSpec"}}
            for media_type in ("application/json", "application/yaml")
        },
    }
}
_ETAG_HEADER = {"headers": {"ETag": {"schema": {"type": "string"}, "description": "The version, quoted."}}}
_STOP_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "It is done."},
    202: {"description": "A running job is being stopped.", "model": JobView},
    **described(Forbidden, NotFound, InvalidTransition),
}


_MAY_BE = {
    "cancelled": "one that has not ended",
    "paused": "one that is queued or running",
    "resumed": "one that is paused, or running and asked to pause",
}
"""The states from which each request is allowed, in words for the error message."""


@router.post(
    "",
    status_code=201,
    response_model=JobView,
    openapi_extra=SPEC_BODY,
    responses={
        200: {
            "description": "A repeat of an earlier request: the first job. Of a dry run: the normalised spec.",
            "content": {
                "application/json": {
                    "schema": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("JobView", "JobSpec")]}
                }
            },
            "headers": {
                WARNINGS_HEADER: {
                    "schema": {"type": "string"},
                    "description": "Of a dry run: the `warnings` that the job would have, as JSON; absent without any.",
                }
            },
        },
        201: {"description": "The job.", "headers": {"Location": {"schema": {"type": "string"}}}},
        **described(Forbidden, RequestInFlight, InvalidSpec, IdempotencyMismatch, QueueLimitReached),
    },
)
def submit(
    caller: Member,
    services: ServicesOf,
    document: Annotated[Any, Depends(read_document)],
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Answers the spec as it would be stored, with every default.")] = False,
) -> Any:
    """Submits a job spec. With an `Idempotency-Key` a repeat returns the first job; with `dry_run` nothing is stored."""
    if dry_run:
        spec, warnings = submission.check(services.database, services.settings, caller, document)
        headers = {WARNINGS_HEADER: warnings_header(warnings)} if warnings else None
        return Response(spec.model_dump_json(), media_type="application/json", headers=headers)
    job, is_new = submission.submit(services.database, services.settings, caller, document, idempotency_key=idempotency_key)
    if is_new and job.status in {Status.QUEUED, Status.CHECKING}:
        _wake(services, job)
    row = _as_stored(services, JobRow(job, caller.user_name, place=None), is_new=is_new)
    headers = {"Location": f"/v1/jobs/{job.id}", "ETag": _etag(row.job.version)}
    content = job_view(row).model_dump_json()
    return Response(content, status_code=201 if is_new else 200, media_type="application/json", headers=headers)


@router.get("", response_model=JobPage, responses=described(InvalidRequest))
async def list_jobs(
    _caller: Viewer,
    services: ServicesOf,
    status: Annotated[
        list[str] | None, Query(max_length=len(Status), description="One or more states, repeated or separated by commas.")
    ] = None,
    owner: Annotated[str | None, Query(max_length=200, description="A user's name.")] = None,
    label: Annotated[
        list[str] | None, Query(max_length=_MAX_LABELS, description="`key:value` or `key=value`; several must all hold.")
    ] = None,
    limit: PageSize = 50,
    after: Annotated[str | None, Query(pattern=r"^job_[0-9a-z]{26}$", description="The last id seen.")] = None,
) -> Response:
    """Jobs, newest first."""
    labels = tuple(_label(text) for text in label or [])
    wanted = JobFilter(statuses=tuple(_statuses(status or [])), labels=labels)
    page = await services.reads.page(wanted, owner=owner, after=after, limit=limit)
    return Response(page, media_type="application/json")


async def get_job(
    job_id: JobId,
    authorization: Authorization,
    services: ServicesOf,
    if_none_match: IfNoneMatch = None,
    prefer: Annotated[
        str | None, Header(alias="Prefer", description="`wait=N`: answer when the job changes, within N seconds, 60 at most.")
    ] = None,
) -> Response:
    """Returns one job. With `If-None-Match` and `Prefer: wait=N` the response comes as soon as the job's `ETag` has changed."""
    wait = wait_seconds(prefer) if if_none_match is not None else None
    if wait:
        return await _changed_job(services, job_id, authorization, if_none_match, wait)
    found = await services.reads.job(job_id, authorization, known_version=known_version(if_none_match))
    return _job_response(found.version, found.body, if_none_match, wait)


router.add_api_route(
    "/{job_id}",
    get_job,
    route_class_override=PollRoute,
    response_model=JobView,
    responses={200: _ETAG_HEADER, 304: {"description": "It is still as `If-None-Match` says."}, **described(NotFound)},
)


async def _changed_job(
    services: Services, job_id: str, authorization: str | None, if_none_match: str | None, wait: int
) -> Response:
    def is_new(version: int) -> bool:
        return not is_unchanged(_etag(version), if_none_match)

    with services.watches.watching(job_id) as watch:
        found = await services.reads.job(job_id, authorization, known_version=known_version(if_none_match))
        version, body = found.version, found.body
        if not is_new(version):
            key_id = found.caller.key_id
            answer = await services.watches.answer(watch, key_id, version=version, is_new=is_new, wait_seconds=wait)
            if answer is not None:
                version, body = answer.version, answer.body
    return _job_response(version, body, if_none_match, wait)


def _job_response(version: int, body: bytes | None, if_none_match: str | None, wait: int | None) -> Response:
    headers = {"ETag": _etag(version)} | ({} if wait is None else {"Preference-Applied": f"wait={wait}"})
    if body is None or is_unchanged(_etag(version), if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@router.patch(
    "/{job_id}",
    responses={
        200: _ETAG_HEADER,
        **described(Forbidden, NotFound, InvalidTransition, PreconditionFailed, CircularDependency, InvalidSpec),
    },
)
def edit_job(
    job_id: JobId, edit: JobEdit, caller: Member, services: ServicesOf, response: Response, if_match: IfMatch = None
) -> JobView:
    """Changes a job's name, labels or priority, and, before it has started, its dependencies. `If-Match` prevents overwriting
    a change that somebody else made meanwhile."""
    changes = edit.model_dump(exclude_unset=True)

    def permit(job: Job) -> None:
        _own(job, caller)
        require_match(_etag(job.version), if_match)
        if job.priority != Priority.HIGH:
            caller.require_priority(changes.get("priority"))

    job = services.database.run(lambda session: jobs.edit(session, job_id, permit=permit, **changes))
    if job.status == Status.QUEUED:
        _wake(services, job)
    return _answer(response, _read(services, job_id))


@router.post("/{job_id}/cancel", responses=_STOP_RESPONSES)
def cancel_job(
    job_id: JobId, caller: Member, services: ServicesOf, response: Response, request: CancelRequest | None = None
) -> JobView:
    """Cancels a job: 200 if it is cancelled, 202 while a running job is being stopped."""

    def cancel(session: Session) -> Job:
        _own(jobs.get(session, job_id, lock=True), caller)
        job, outcome = jobs.request_cancel(session, job_id, keep=(request or CancelRequest()).keep)
        _require(outcome, job, "cancelled")
        return job

    return _stopped(response, services, services.database.run(cancel))


@router.post("/{job_id}/pause", responses=_STOP_RESPONSES)
def pause_job(job_id: JobId, caller: Member, services: ServicesOf, response: Response) -> JobView:
    """Takes a job out of the queue, or stops it at a checkpoint: 200 if it is paused, 202 while it is being stopped."""

    def pause(session: Session) -> Job:
        _own(jobs.get(session, job_id, lock=True), caller)
        job, outcome = jobs.request_pause(session, job_id)
        _require(outcome, job, "paused")
        return job

    return _stopped(response, services, services.database.run(pause))


@router.post("/{job_id}/resume", responses={**_STOP_RESPONSES, **described(QueueLimitReached)})
def resume_job(job_id: JobId, caller: Member, services: ServicesOf, response: Response) -> JobView:
    """Puts a paused job back into the queue; it continues from its checkpoint."""

    def resume(session: Session) -> tuple[Job, Outcome]:
        _own(jobs.get(session, job_id, lock=True), caller)
        job, outcome = jobs.resume(session, job_id)
        _require(outcome, job, "resumed")
        return job, outcome

    job, outcome = services.database.run(resume)
    if outcome is Outcome.APPLIED:
        _wake(services, job)
    return _stopped(response, services, job)


@router.get("/{job_id}/explain", responses=described(NotFound))
def explain_job(job_id: JobId, _caller: Viewer, services: ServicesOf) -> Explanation:
    """Explains a job's state: its place in the queue, its owner's fair share, what blocks it, and when it should start."""

    def explain(session: Session) -> Explanation:
        row = queries.job_row(session, job_id, services.queue_status_cache)
        return explanation(session, row, services.queue_status_cache)

    return services.database.run(explain)


@router.delete("/{job_id}", status_code=204, responses=described(Forbidden, NotFound, Conflict))
async def delete_job(job_id: JobId, caller: Member, services: ServicesOf) -> None:
    """Deletes a finished job, its student and its files."""

    def remove(session: Session) -> str:
        _own(jobs.get(session, job_id, lock=True), caller)
        return jobs.remove(session, job_id)

    await remove_with_files(services, remove)


def _as_stored(services: Services, written: JobRow, *, is_new: bool) -> JobRow:
    """What a submission answers: a new job as it was written, with its place in the queue; a repeat as it is by now.

    A new job is stored: if its place cannot be read, that is no reason to say that it is not.
    """
    if is_new and written.job.status != Status.QUEUED:
        return written
    try:
        return _read(services, written.job.id)
    except SQLAlchemyError as error:
        if not is_new or meaning_of(error) is Meaning.OURS:
            raise
        return written


def _read(services: Services, job_id: str) -> JobRow:
    return services.database.run(lambda session: queries.job_row(session, job_id, services.queue_status_cache))


def _wake(services: Services, job: Job) -> None:
    """Wakes the workers of the job's pool; a queued job of high priority preempts others first."""
    if job.status == Status.QUEUED and job.priority == Priority.HIGH:
        preempt(services.database, job.pool, lease_seconds=services.settings.lease_seconds)
    services.broker.wake(job.pool)


def _etag(version: int) -> str:
    return f'"{version}"'


def _answer(response: Response, row: JobRow) -> JobView:
    response.headers["ETag"] = _etag(row.job.version)
    return job_view(row)


def _stopped(response: Response, services: Services, job: Job) -> JobView:
    response.status_code = 202 if job.stop_requested is not None else 200
    return _answer(response, _read(services, job.id))


def _own(job: Job, caller: Caller) -> Job:
    caller.require_owner(job.owner_id, f"job {job.id}")
    return job


def _require(outcome: Outcome, job: Job, verb: str) -> None:
    if outcome is Outcome.NOT_ALLOWED:
        being = f" and asked to {job.stop_requested}" if job.stop_requested else ""
        raise InvalidTransition(f"job {job.id} is {job.status}{being}: it cannot be {verb}, as {_MAY_BE[verb]} can")


def _statuses(texts: list[str]) -> list[str]:
    words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    unknown = sorted(set(words) - set(Status))
    if unknown:
        raise InvalidRequest(f"{', '.join(unknown)}: no such state; use some of {', '.join(Status)}", param="status")
    return words


def _label(text: str) -> tuple[str, str]:
    separator = min((sign for sign in ":=" if sign in text), key=text.index, default=None)
    if separator is None:
        raise InvalidRequest(f"{text!r:.80} is no label; write key:value", param="label")
    key, _, value = text.partition(separator)
    return key, value
