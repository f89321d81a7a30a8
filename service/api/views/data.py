"""Datasets and models, as clients see them."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict

from service.api.views.jobs import View
from service.formats import Sample
from service.spec.data import Column, DatasetInfo
from service.tables import Dataset, Model


class DatasetView(View):
    """An uploaded dataset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "ds_01k5zq3v7m8n9p0q1r2s3t4v5w",
                    "object": "dataset",
                    "name": "street signs",
                    "owner": "ada",
                    "task": "image-classification",
                    "splits": {"train": 1200, "test": 300},
                    "columns": {
                        "image": {"kind": "image", "dtype": "uint8", "shape": [32, 32, 3]},
                        "label": {"kind": "label", "dtype": "int64", "num_classes": 2},
                    },
                    "classes": ["stop", "yield"],
                    "class_counts": {"train": [600, 600], "test": [150, 150]},
                    "filename": "signs.npz",
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "bytes": 4608000,
                    "created_at": "2026-11-02T09:30:00Z",
                }
            ]
        }
    )

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    owner: str
    task: str
    splits: dict[str, int]
    """Rows by split."""
    columns: dict[str, Column]
    classes: list[str]
    class_counts: dict[str, list[int]]
    """Samples of each class, by split."""
    filename: str
    sha256: str
    bytes: int
    created_at: datetime


class DatasetDetail(DatasetView):
    """An uploaded dataset with a look into it."""

    model_config = ConfigDict(json_schema_extra={})

    samples: list[Sample]
    """Its first rows."""


class DatasetPage(View):
    """Datasets, newest first."""

    object: Literal["list"] = "list"
    data: list[DatasetView]
    has_more: bool


class ModelFile(View):
    """A file of a model's folder."""

    name: str
    size: int
    sha256: str
    media_type: str


class ModelView(View):
    """A network that may teach: an uploaded one, or a finished job's student."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "model_01k5zq3v7m8n9p0q1r2s3t4v5w",
                    "object": "model",
                    "name": "sign teacher",
                    "owner": "ada",
                    "task": "image-classification",
                    "job_id": None,
                    "classes": ["stop", "yield"],
                    "input_shape": [3, 32, 32],
                    "files": [
                        {
                            "name": "model.safetensors",
                            "size": 44700000,
                            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                            "media_type": "application/octet-stream",
                        }
                    ],
                    "created_at": "2026-11-02T09:30:00Z",
                }
            ]
        }
    )

    id: str
    object: Literal["model"] = "model"
    name: str
    owner: str
    task: str
    job_id: str | None
    """The job whose student it is; null for an upload."""
    classes: list[str]
    input_shape: list[int]
    """Channels, height, width."""
    files: list[ModelFile]
    created_at: datetime


class ModelPage(View):
    """Models, newest first."""

    object: Literal["list"] = "list"
    data: list[ModelView]
    has_more: bool


def dataset_view(dataset: Dataset, owner: str) -> DatasetView:
    """A stored dataset as clients see it."""
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
        filename=dataset.filename,
        sha256=dataset.sha256,
        bytes=dataset.bytes,
        created_at=dataset.created_at,
    )


def dataset_detail(dataset: Dataset, owner: str, samples: list[Sample]) -> DatasetDetail:
    """A stored dataset with its first rows."""
    return DatasetDetail(**dataset_view(dataset, owner).model_dump(), samples=samples)


def model_view(model: Model, owner: str) -> ModelView:
    """A stored model as clients see it."""
    return ModelView(
        id=model.id,
        name=model.name,
        owner=owner,
        task=model.task,
        job_id=model.job_id,
        classes=model.classes,
        input_shape=model.input_shape,
        files=[ModelFile(**{name: file[name] for name in ModelFile.model_fields}) for file in model.files],
        created_at=model.created_at,
    )
