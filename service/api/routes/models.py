"""Routes of models: upload a network, list all, name one, download files, delete."""

from functools import partial
from typing import Annotated, get_args

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import models
from service.api.bodies import StrictRoute
from service.api.dependencies import Member, ServicesOf, Viewer
from service.api.examples import MODEL
from service.api.files import STORED_FILE_RESPONSES, RangeRequest, file_response
from service.api.parameters import FileName, ModelId, PageSize
from service.api.problems import described
from service.api.removal import remove_with_files
from service.api.responses.data import ModelEdit, ModelPage, ModelView, model_view
from service.api.upload_form import MAX_NAME_CHARACTERS, UploadForm
from service.api.uploads import Upload, receive
from service.errors import Conflict, Forbidden, HandleTaken, InvalidFile, InvalidInput, NotFound
from service.models import NewModel
from service.spec.names import ONE_LINE
from service.spec.tasks import TaskName

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)

_FORM = UploadForm(
    file_description="A zip or tar of a `from_pretrained` folder with safetensors weights.",
    fields={
        "name": {
            "type": "string",
            "maxLength": MAX_NAME_CHARACTERS,
            "pattern": ONE_LINE,
            "description": "By default the file's name.",
        },
        "task": {"enum": list(get_args(TaskName)), "description": "What it is for. By default what it says itself."},
    },
    required=(),
    example={"file": "teacher.zip", "name": MODEL["name"], "task": MODEL["task"]},
)


@router.post(
    "",
    status_code=201,
    openapi_extra=_FORM.openapi(),
    responses=described(Forbidden, InvalidFile, InvalidInput),
)
async def upload_model(request: Request, caller: Member, services: ServicesOf, response: Response) -> ModelView:
    """Stores a network that can teach. Weights are safetensors: nothing is ever unpickled."""

    def ingest(upload: Upload) -> ModelView:
        max_bytes = services.settings.max_upload_bytes
        model = models.ingest(services.database, services.store, _new_model(upload), owner_id=caller.user_id, max_bytes=max_bytes)
        return services.database.run(lambda session: model_view(models.find(session, model.id)))

    view = await receive(request, services, _FORM, ingest)
    response.headers["Location"] = f"/v1/models/{view.id}"
    return view


@router.get("")
def list_models(
    _caller: Viewer,
    services: ServicesOf,
    limit: PageSize = 50,
    after: Annotated[str | None, Query(pattern=r"^model_[0-9a-z]{26}$", description="The last id seen.")] = None,
) -> ModelPage:
    """Models, newest first: uploads, and the students and teachers of finished jobs."""
    listed, has_more = services.database.run(lambda session: models.page(session, after=after, limit=limit))
    return ModelPage(data=[model_view(each) for each in listed], has_more=has_more)


@router.get("/{model_id}", responses=described(NotFound))
def get_model(model_id: ModelId, _caller: Viewer, services: ServicesOf) -> ModelView:
    """One model."""
    return services.database.run(lambda session: model_view(models.find(session, model_id)))


@router.patch("/{model_id}", responses=described(Forbidden, NotFound, HandleTaken))
def edit_model(model_id: ModelId, edit: ModelEdit, caller: Member, services: ServicesOf) -> ModelView:
    """Renames a model, and sets the handle that specs may name it by: `model:HANDLE`. A stored spec has the id in its place."""

    def change(session: Session) -> ModelView:
        caller.require_owner(models.find(session, model_id).model.owner_id, f"model {model_id}")
        models.edit(session, model_id, **edit.model_dump(exclude_unset=True))
        return model_view(models.find(session, model_id))

    return services.database.run(change)


@router.get("/{model_id}/files/{name:path}", response_class=Response, responses=STORED_FILE_RESPONSES)
async def get_model_file(
    model_id: ModelId, name: FileName, request: Request, _caller: Viewer, services: ServicesOf, range_request: RangeRequest
) -> Response:
    """One file of the model's folder. `Range` and `If-None-Match` work; the ETag is its SHA-256. From S3: a redirect."""
    file = await run_in_threadpool(services.database.run, partial(models.find_file, model_id=model_id, name=name))
    return await file_response(request, services, file, range_request)


@router.delete("/{model_id}", status_code=204, responses=described(Forbidden, NotFound, Conflict))
async def delete_model(model_id: ModelId, caller: Member, services: ServicesOf) -> None:
    """Deletes an uploaded model that no live job uses."""

    def remove(session: Session) -> str:
        caller.require_owner(models.find(session, model_id).model.owner_id, f"model {model_id}")
        return models.remove(session, model_id)

    await remove_with_files(services, remove)


def _new_model(upload: Upload) -> NewModel:
    faults = _FORM.field_errors(upload.fields)
    if faults:
        raise InvalidInput(faults)
    name = upload.fields.get("name") or upload.filename
    return NewModel(path=upload.path, filename=upload.filename, name=name, task=upload.fields.get("task") or None)
