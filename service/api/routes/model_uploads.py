"""Routes of uploads of a model's folder: file by file, each in as many parts as it takes."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request, Response
from fastapi import Path as InPath
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import model_uploads, models
from service.api.bodies import StrictRoute
from service.api.dependencies import Member, Services, ServicesOf
from service.api.problems import described
from service.api.removal import remove_with_files
from service.api.responses.data import ModelView, model_view
from service.api.responses.model_uploads import ModelUploadRequest, ModelUploadView, upload_view
from service.api.uploads import INGEST_SECONDS, LEAST_BYTES_PER_SECOND, telling_what_is_away
from service.errors import Conflict, Forbidden, InvalidFile, InvalidInput, InvalidRequest, NotFound, UploadLimitReached
from service.model_uploads import NewFile

router = APIRouter(prefix="/v1/model-uploads", tags=["models"], route_class=StrictRoute)

UploadId = Annotated[str, InPath(description="The upload's id, `upload_…`.")]
Sha256 = Annotated[str, InPath(description="The file's SHA-256, in lower-case hex.")]
Offset = Annotated[str, Header(alias="Upload-Offset", description="How much of the file was sent before.")]
_BATCH_BYTES = 2**20
_OFFSET = {"Upload-Offset": {"description": "How much of the file is here.", "schema": {"type": "integer"}}}
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.post(
    "",
    status_code=201,
    responses=described(Forbidden, InvalidFile, InvalidInput, UploadLimitReached)
    | {200: {"model": ModelUploadView, "description": "One of the same files that you have begun."}},
)
def begin_upload(new: ModelUploadRequest, caller: Member, services: ServicesOf, response: Response) -> ModelUploadView:
    """Begins to store the folder of a network that can teach. The answer says which of its files are not here yet."""
    files = [NewFile(file.name, file.size, file.sha256) for file in new.files]

    def begin(session: Session) -> tuple[ModelUploadView, bool]:
        state, is_new = model_uploads.begin(
            session,
            files,
            owner_id=caller.user_id,
            name=new.name,
            task=new.task,
            max_bytes=services.settings.max_upload_bytes,
            most_unfinished=services.settings.max_unfinished_uploads,
        )
        return upload_view(state), is_new

    view, is_new = services.database.run(begin)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/model-uploads/{view.id}"
    return view


@router.get("/{upload_id}", responses=described(Forbidden, NotFound))
def get_upload(upload_id: UploadId, caller: Member, services: ServicesOf) -> ModelUploadView:
    """One of your uploads: what of it is here."""
    return services.database.run(lambda session: upload_view(model_uploads.find(session, upload_id, owner_id=caller.user_id)))


@router.delete("/{upload_id}", status_code=204, responses=described(Forbidden, NotFound))
async def abandon_upload(upload_id: UploadId, caller: Member, services: ServicesOf) -> None:
    """Gives an upload up. One to which nothing was added for a day is given up by itself."""
    await remove_with_files(services, partial(model_uploads.abandon, upload_id=upload_id, owner_id=caller.user_id))


@router.get(
    "/{upload_id}/files/{sha256}",
    status_code=204,
    responses=described(Forbidden, NotFound) | {204: {"headers": _OFFSET, "description": "How much of the file is here."}},
)
def get_offset(upload_id: UploadId, sha256: Sha256, caller: Member, services: ServicesOf) -> Response:
    """How much of a file is here, in the header `Upload-Offset`: where to go on. HEAD works too."""

    def read(session: Session) -> int:
        state = model_uploads.find(session, upload_id, owner_id=caller.user_id)
        state.size(sha256)
        return state.offsets[sha256]

    return Response(status_code=204, headers={"Upload-Offset": str(services.database.run(read))})


@router.put(
    "/{upload_id}/files/{sha256}",
    status_code=204,
    responses=described(Forbidden, NotFound, Conflict, InvalidFile, InvalidRequest)
    | {204: {"headers": _OFFSET, "description": "Added."}},
    openapi_extra={"requestBody": {"required": True, **_BYTES}},
)
async def add_bytes(
    upload_id: UploadId, sha256: Sha256, request: Request, caller: Member, services: ServicesOf, offset: Offset = "0"
) -> Response:
    """Adds bytes to a file: all, the rest from `Upload-Offset` on, or a part. What arrives before a connection breaks is kept."""
    if not re.fullmatch(r"\d{1,18}", offset):
        raise InvalidRequest(f"Upload-Offset is {offset!r:.80}, which is no number of bytes", param="Upload-Offset")
    start, owner_id = int(offset), caller.user_id

    def require(session: Session) -> None:
        model_uploads.require_offset(model_uploads.find(session, upload_id, owner_id=owner_id), sha256, start)

    await run_in_threadpool(services.database.run, require)  # rather than after gigabytes
    async with _staging(services) as folder:
        received, broken = await _receive(request, folder / "received")
        add = partial(
            model_uploads.add,
            services.database,
            services.store,
            upload_id,
            sha256,
            received,
            start=start,
            owner_id=owner_id,
        )
        if broken is None or received.stat().st_size:
            limit_seconds = INGEST_SECONDS + (start + received.stat().st_size) / LEAST_BYTES_PER_SECOND
            here = await services.ingests.run(add, limit_seconds=limit_seconds)
        if broken is not None:
            raise broken
    return Response(status_code=204, headers={"Upload-Offset": str(here)})


@router.post("/{upload_id}/finish", status_code=201, responses=described(Forbidden, NotFound, Conflict, InvalidFile))
async def finish_upload(upload_id: UploadId, caller: Member, services: ServicesOf, response: Response) -> ModelView:
    """Makes a model of the files once all are here. Repeated, it answers with the same model."""

    def finish(folder: Path) -> ModelView:
        made = model_uploads.finish(services.database, services.store, upload_id, owner_id=caller.user_id, folder=folder)
        return services.database.run(lambda session: model_view(models.find(session, made.id)))

    async with _staging(services) as folder:
        view = await services.ingests.run(partial(finish, folder), limit_seconds=INGEST_SECONDS)
    response.headers["Location"] = f"/v1/models/{view.id}"
    return view


@asynccontextmanager
async def _staging(services: Services) -> AsyncIterator[Path]:
    """A folder for the block. Raises Unavailable where there is no room, or no store."""
    with telling_what_is_away():
        await services.store_calls.run(services.store.ping)
        parent = services.settings.scratch
        with TemporaryDirectory(prefix="stillhouse-upload-", dir=parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)


async def _receive(request: Request, target: Path) -> tuple[Path, HTTPException | None]:
    """Writes the body to a file, which has what came of it if it broke off."""
    with target.open("xb") as file:
        batch = bytearray()
        broken = None
        try:
            async for chunk in request.stream():
                batch += chunk
                if len(batch) >= _BATCH_BYTES:
                    await run_in_threadpool(file.write, bytes(batch))
                    batch.clear()
        except HTTPException as error:
            broken = error
        await run_in_threadpool(file.write, bytes(batch))
    return target, broken
