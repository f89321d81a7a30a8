"""Routes of datasets: upload, list, read, delete."""

from functools import partial
from typing import Annotated, cast, get_args

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import datasets
from service.api.bodies import StrictRoute
from service.api.dependencies import Member, ServicesOf, Viewer
from service.api.examples import DATASET
from service.api.parameters import DatasetId, PageSize
from service.api.problems import described
from service.api.removal import remove_with_files
from service.api.responses.data import DatasetDetail, DatasetPage, DatasetView, dataset_detail, dataset_view
from service.api.upload_form import MAX_NAME_CHARACTERS, UploadForm
from service.api.uploads import Upload, receive
from service.datasets import WEIGHT_MARK, NewDataset
from service.errors import Conflict, FieldError, Forbidden, InvalidFile, InvalidInput, NotFound
from service.formats.task_of_file import purpose_of
from service.spec.names import ONE_LINE
from service.spec.tasks import MAX_TARGETS, TASKS, TaskName, default_inputs, default_targets

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=StrictRoute)

_FILE = (
    "For images npz, Parquet, or a zip or tar of class folders (`cat/1.png`, or `train/cat/1.png` by split; without labels the "
    "files alone, `1.png` or `train/1.png`) of PNG, JPEG, WebP, GIF, BMP or TIFF; for text Parquet, JSON Lines, an array of "
    "JSON or CSV, for words with tags Parquet or JSON Lines; for sound Parquet, or a zip or tar of class folders of WAV or FLAC. "
    "In a file of rows, a column `split` may say which split each is in."
)
_INPUT = (
    f"What the networks read. By default {default_inputs()}, by the task. For `text-classification` two columns, with a comma "
    "between them, are pairs of texts: `premise,hypothesis`."
)
_TARGET = (
    "What is predicted: labels (integers from 0, strings or booleans) or numbers (floats). Several columns, with commas between "
    "them, make a multi-task dataset. A row need not have a value; a file without the default column is stored as unlabelled. "
    f"By default {default_targets()}; a `causal-lm` may have one of texts, the answers."
)
_TASK = "What it is to train. By default what the kind of its files, or the usual names of its columns, tell; else it is needed."
_WEIGHT = "The weights of the rows, numbers of 0 and more, for the spec's `dataset.weight`. None by default."
_SKIP = "Whether rows whose file of an image or of sound cannot be read are left out and told, rather than refused."
_FORM = UploadForm(
    file_description=_FILE,
    fields={
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME_CHARACTERS,
            "pattern": ONE_LINE,
            "description": "For people.",
        },
        "task": {"enum": list(get_args(TaskName)), "description": _TASK},
        "input_column": {"type": "string", "maxLength": 2 * MAX_NAME_CHARACTERS + 1, "description": _INPUT},
        "weight_column": {"type": "string", "maxLength": MAX_NAME_CHARACTERS, "description": _WEIGHT},
        "target_column": {"type": "string", "maxLength": MAX_TARGETS * (MAX_NAME_CHARACTERS + 1), "description": _TARGET},
        "skip_broken": {"enum": ["true", "false"], "default": "false", "description": _SKIP},
    },
    required=("name",),
    example={"file": DATASET["filename"], "name": DATASET["name"], "task": DATASET["task"]},
)


@router.post(
    "",
    status_code=201,
    response_model=DatasetView,
    openapi_extra=_FORM.openapi(),
    responses={
        200: {
            "description": "These bytes are stored already for this task and these columns: that dataset.",
            "model": DatasetView,
        },
        **described(Forbidden, InvalidFile, InvalidInput),
    },
)
async def upload_dataset(request: Request, caller: Member, services: ServicesOf, response: Response) -> DatasetView:
    """Stores a dataset after the whole file was read, checked and converted to shards, which jobs read."""

    def ingest(upload: Upload) -> tuple[DatasetView, bool]:
        dataset, is_new = datasets.ingest(
            services.database,
            services.store,
            _new_dataset(upload),
            owner_id=caller.user_id,
            keep_original=services.settings.keep_originals,
        )
        return services.database.run(lambda session: dataset_view(*datasets.find(session, dataset.id))), is_new

    view, is_new = await receive(request, services, _FORM, ingest)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/datasets/{view.id}"
    return view


@router.get("")
def list_datasets(
    _caller: Viewer,
    services: ServicesOf,
    limit: PageSize = 50,
    after: Annotated[str | None, Query(pattern=r"^ds_[0-9a-z]{26}$", description="The last id seen.")] = None,
) -> DatasetPage:
    """Datasets, newest first."""
    rows, has_more = services.database.run(lambda session: datasets.page(session, after=after, limit=limit))
    return DatasetPage(data=[dataset_view(dataset, owner) for dataset, owner in rows], has_more=has_more)


@router.get("/{dataset_id}", responses=described(NotFound))
async def get_dataset(dataset_id: DatasetId, _caller: Viewer, services: ServicesOf) -> DatasetDetail:
    """Returns one dataset, with its first rows."""
    dataset, owner = await run_in_threadpool(services.database.run, partial(datasets.find, dataset_id=dataset_id))
    samples = await services.store_calls.run(partial(datasets.samples, services.store, dataset))
    return dataset_detail(dataset, owner, samples)


@router.delete("/{dataset_id}", status_code=204, responses=described(Forbidden, NotFound, Conflict))
async def delete_dataset(dataset_id: DatasetId, caller: Member, services: ServicesOf) -> None:
    """Deletes a dataset that no live job uses."""

    def remove(session: Session) -> str:
        dataset, _ = datasets.find(session, dataset_id)
        caller.require_owner(dataset.owner_id, f"dataset {dataset_id}")
        return datasets.remove(session, dataset_id)

    await remove_with_files(services, remove)


def _new_dataset(upload: Upload) -> NewDataset:
    faults = _FORM.field_errors(upload.fields)
    targets = [name.strip() for name in upload.fields.get("target_column", "").split(",")]
    weight = upload.fields.get("weight_column", "").strip()
    inputs = [name.strip() for name in upload.fields.get("input_column", "").split(",")]
    if targets != [""]:
        faults += _target_faults(targets)
    if faults:
        raise InvalidInput(faults)
    task = cast(TaskName, upload.fields.get("task"))
    if not task:
        purpose = purpose_of(upload.path, upload.filename, inputs=list(filter(None, inputs)), targets=list(filter(None, targets)))
        task = purpose.task
        inputs = list(purpose.inputs or [""]) if inputs == [""] else inputs
        targets = list(purpose.targets or [""]) if targets == [""] else targets
    if inputs != [""] and (faults := _input_faults(inputs, task)):
        raise InvalidInput(faults)
    return NewDataset(
        path=upload.path,
        filename=upload.filename,
        sha256=upload.sha256,
        size=upload.size,
        name=upload.fields["name"],
        task=task,
        input_column=",".join(inputs) if TASKS[task].takes_pairs else upload.fields.get("input_column") or ",".join(inputs),
        target_column=",".join(targets) + (f"{WEIGHT_MARK}{weight}" if weight else ""),
        skip_broken=upload.fields.get("skip_broken") == "true",
    )


def _input_faults(inputs: list[str], task: TaskName) -> list[FieldError]:
    """Finds the faults of an input column, of which a task that reads pairs may have two; elsewhere a comma is part of a name."""
    messages = []
    if not TASKS[task].takes_pairs:
        inputs = [",".join(inputs)]
    elif len(inputs) > 2 or "" in inputs or len(set(inputs)) < len(inputs):
        messages.append(
            "the input is one column, or two different ones, whose texts are read as a pair: write premise,hypothesis"
        )
    if any(len(name) > MAX_NAME_CHARACTERS for name in inputs):
        messages.append(f"the name of a column has at most {MAX_NAME_CHARACTERS} characters")
    return [FieldError(pointer="/input_column", message=message) for message in messages]


def _target_faults(targets: list[str]) -> list[FieldError]:
    messages = []
    if "" in targets:
        messages.append("a name is missing beside a comma; write a,b")
    if any(len(name) > MAX_NAME_CHARACTERS for name in targets):
        messages.append(f"the name of a column has at most {MAX_NAME_CHARACTERS} characters")
    if twice := sorted({name for name in targets if targets.count(name) > 1}):
        messages.append(f"{', '.join(map(repr, twice))} is named several times; name each column once")
    if len(targets) > MAX_TARGETS:
        messages.append(f"{len(targets)} columns are named; at most {MAX_TARGETS} may be")
    return [FieldError(pointer="/target_column", message=message) for message in messages]
