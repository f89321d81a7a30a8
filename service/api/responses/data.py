"""Responses about datasets and models."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.api.responses.shape import Page, View
from service.formats import Sample
from service.models import Listed
from service.spec.data import Column, DatasetInfo
from service.spec.dataset_facts import DatasetFacts
from service.spec.names import OneLine
from service.spec.source import ModelHandle
from service.spec.warning_message import WarningMessage
from service.tables import Dataset


class DatasetView(View):
    """An uploaded dataset."""

    id: str
    """``ds_`` and 26 characters; ``dataset:ID`` names it in a spec."""
    object: Literal["dataset"] = "dataset"
    """The type of the object."""
    name: str
    """For people; need not be unique."""
    owner: str
    """The name of the user who uploaded it first."""
    task: str
    """The task that it is for."""
    splits: dict[str, int]
    """Rows by split."""
    columns: dict[str, Column]
    """The columns of its rows, by name."""
    classes: list[str]
    """The names of the first target's classes, in the order of their indices; empty if the first target is not a label."""
    class_counts: dict[str, list[int]]
    """Samples of each class of the first target, by split."""
    warnings: list[WarningMessage]
    """What of the file takes no part by default, and what was read otherwise than one might think."""
    filename: str
    """The uploaded file's own name."""
    sha256: str
    """The SHA-256 of the uploaded file, in hexadecimal."""
    bytes: int
    """Size of the uploaded file."""
    stored_bytes: int
    """Size of what is kept: the shards that it was converted to, and the file itself if the service keeps those."""
    original_kept: bool
    """Whether the uploaded file itself is kept."""
    created_at: datetime
    """When it was first uploaded."""


class DatasetDetail(DatasetView):
    """An uploaded dataset with a preview and with what was counted of it."""

    samples: list[Sample]
    """Its first rows."""
    facts: DatasetFacts | None
    """How long its inputs are, and which rows are there several times; null for one from before this was counted."""


class DatasetPage(Page[DatasetView]):
    """Datasets, newest first."""


class ModelFile(View):
    """A file of a model's folder."""

    name: str
    """Its path in the folder."""
    size: int
    """In bytes."""
    sha256: str
    """The SHA-256 of the file, in hexadecimal; in quotes it is the file's ``ETag``."""
    media_type: str
    """The ``Content-Type`` that it is sent with."""


class ModelUses(View):
    """The jobs that use a model."""

    count: int
    """How many jobs learn from it, or begin with it."""
    jobs: list[str]
    """Up to ten of them: unfinished ones first, which keep it from being deleted, then new ones."""


class ModelView(View):
    """A network that jobs may begin with: an upload, or the student or the teacher of a finished job."""

    id: str
    """``model_`` and 26 characters; ``model:ID`` names it in a spec."""
    object: Literal["model"] = "model"
    """The type of the object."""
    handle: str | None
    """``model:HANDLE`` names it in a spec too; null for none."""
    name: str
    """For people; need not be unique."""
    owner: str
    """The name of the user who uploaded it, or whose job trained it."""
    task: str
    """The task that it is for."""
    job_id: str | None
    """The job that left it; null for an upload."""
    part: Literal["student", "teacher"] | None
    """Which of its job's networks it is; null for an upload."""
    parameters: int | None
    """Number of its weights; null where its files do not say."""
    bytes: int
    """Size of its files."""
    dtype: str | None
    """The number format of most of its weights, such as ``fp32``; null where its files do not say."""
    base: str | None
    """The network that it was made of, as its model card says; null where that says nothing."""
    licence: str | None
    """Its licence, as its model card says; a job's network has that of the network whose weights it began with. Null where it
    says none."""
    used_by: ModelUses
    """The jobs that use it."""
    classes: list[str]
    """The names of the classes, in the order of the outputs."""
    input_shape: list[int]
    """Channels, height, width of its images; 1, frames, mel bands of spectrograms; empty for texts and waveforms."""
    files: list[ModelFile]
    """The files of its folder, by name."""
    created_at: datetime
    """When it was stored."""


class ModelEdit(View):
    """The fields of a model that can be changed."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[OneLine, Field(min_length=1, max_length=200)] = ""
    """The new name."""
    handle: ModelHandle | None = None
    """What ``model:HANDLE`` in a spec finds it by, one model each; null takes it away."""


class ModelPage(Page[ModelView]):
    """Models, newest first."""


def dataset_view(dataset: Dataset, owner: str) -> DatasetView:
    """Builds the response for a stored dataset."""
    info = DatasetInfo.model_validate(dataset.info)
    return DatasetView(
        id=dataset.id,
        name=dataset.name,
        owner=owner,
        task=dataset.task,
        splits=info.splits,
        columns=info.columns,
        classes=info.classes,
        class_counts=info.class_counts,
        warnings=info.warnings,
        filename=dataset.filename,
        sha256=dataset.sha256,
        bytes=dataset.bytes,
        stored_bytes=sum(file["size"] for file in dataset.files or ()) + (0 if dataset.path is None else dataset.bytes),
        original_kept=dataset.path is not None,
        created_at=dataset.created_at,
    )


def dataset_detail(dataset: Dataset, owner: str, samples: list[Sample]) -> DatasetDetail:
    """Builds the response for a stored dataset with its first rows and facts."""
    facts = DatasetInfo.model_validate(dataset.info).facts
    return DatasetDetail(**dataset_view(dataset, owner).model_dump(), samples=samples, facts=facts)


def model_view(listed: Listed) -> ModelView:
    """Builds the response for a stored model."""
    model = listed.model
    return ModelView(
        id=model.id,
        handle=model.handle,
        name=model.name,
        owner=listed.owner,
        task=model.task,
        job_id=model.job_id,
        part=None if model.job_id is None else model.part,
        parameters=model.parameters,
        bytes=sum(file["size"] for file in model.files),
        dtype=model.dtype,
        base=model.base,
        licence=model.licence,
        used_by=ModelUses(count=listed.num_uses, jobs=listed.used_by),
        classes=model.classes,
        input_shape=model.input_shape,
        files=[ModelFile(**{name: file[name] for name in ModelFile.model_fields}) for file in model.files],
        created_at=model.created_at,
    )
