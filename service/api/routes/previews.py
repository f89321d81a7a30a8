"""Routes of previews: what the networks of a spec will read, made by a worker."""

import asyncio
import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import previews
from service.api.bodies import StrictRoute, read_document
from service.api.conditions import wait_seconds
from service.api.dependencies import Member, Services, ServicesOf, Viewer
from service.api.problems import described
from service.api.responses.previews import PreviewView, preview_view
from service.api.routes.jobs import SPEC_BODY
from service.errors import Forbidden, InvalidSpec, NotFound, NoWorker, PreviewLimitReached
from service.spec.preview import MOST_SAMPLES, USUAL_SAMPLES
from service.submission import ask_preview

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=StrictRoute)

_WAIT_SECONDS = 20
_LOOK_SECONDS = 0.25
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description=f"`wait=N`: answer once it has ended, within N seconds, 60 at most. Else {_WAIT_SECONDS}.",
    ),
]
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Where to look for it."}}


@router.post(
    "/jobs/preview",
    openapi_extra=SPEC_BODY,
    responses={
        200: {"description": "It was made, or cannot be: then `error` says why.", "headers": _LOCATION},
        202: {"description": "It is not there yet: look at `Location`.", "model": PreviewView, "headers": _LOCATION},
        **described(Forbidden, InvalidSpec, NoWorker, PreviewLimitReached),
    },
)
async def preview_job(
    caller: Member,
    services: ServicesOf,
    response: Response,
    document: Annotated[Any, Depends(read_document)],
    samples: Annotated[int, Query(ge=1, le=MOST_SAMPLES, description="How many, of the training split.")] = USUAL_SAMPLES,
    prefer: Prefer = None,
) -> PreviewView:
    """Has a worker read some samples of a spec as its networks will: tokens and which count, images, sound. Nothing is queued."""
    ask = partial(ask_preview, services.database, services.settings, caller, document, num_samples=samples)
    asked, _ = await run_in_threadpool(ask)
    await run_in_threadpool(services.broker.wake, asked.pool)
    view = await _awaited(services, asked.id, prefer)
    response.status_code = 200 if view.finished_at is not None else 202
    response.headers["Location"] = f"/v1/previews/{view.id}"
    return view


@router.get("/previews/{preview_id}", responses=described(NotFound))
async def get_preview(
    preview_id: Annotated[str, Path(description="The preview's id, `preview_…`.")],
    _caller: Viewer,
    services: ServicesOf,
    prefer: Prefer = None,
) -> PreviewView:
    """Returns a preview, as soon as it has ended, or as it is when the time is up. It is kept for a day."""
    return await _awaited(services, preview_id, prefer)


async def _awaited(services: Services, preview_id: str, prefer: str | None) -> PreviewView:
    """Reads the preview again and again until it has ended, the time is up, or this process ends."""

    def read(session: Session) -> PreviewView:
        return preview_view(previews.find(session, preview_id))

    asked = wait_seconds(prefer)
    until = time.monotonic() + (_WAIT_SECONDS if asked is None else asked)
    while True:
        view = await run_in_threadpool(services.database.run, read)
        if view.finished_at is not None or time.monotonic() >= until or services.watches.is_closing:
            return view
        await asyncio.sleep(_LOOK_SECONDS)
