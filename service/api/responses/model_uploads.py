"""Requests and responses about uploads of a model's folder."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.responses.shape import View
from service.api.responses.team import Name
from service.model_uploads import UploadState
from service.spec.tasks import TaskName


class UploadFile(BaseModel):
    """A file of the folder."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, max_length=500)]
    """Its path in the folder, with `/`."""
    size: Annotated[int, Field(ge=0)]
    """In bytes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """In lower-case hex."""


class ModelUploadRequest(BaseModel):
    """The folder of a network, as its files are."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name
    """For people; need not be unique."""
    task: TaskName | None = None
    """What it is for. By default what it says itself."""
    files: Annotated[list[UploadFile], Field(min_length=1)]
    """All its files."""


class UploadFileView(UploadFile):
    """A file of the folder, and how much of it is here."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    offset: int
    """So many of its bytes are here."""


class ModelUploadView(View):
    """A folder that is being uploaded."""

    id: str
    """``upload_`` and 26 characters."""
    object: Literal["model_upload"] = "model_upload"
    """The type of the object."""
    name: str
    """The name of the model that it becomes."""
    task: str | None
    """What it is for; null for what it says itself."""
    files: list[UploadFileView]
    """Its files, by name."""
    missing: list[str]
    """The SHA-256 of each file that is to be sent, or the rest of it: others are here, from this upload or from any before."""
    created_at: datetime
    """When it began."""


def upload_view(state: UploadState) -> ModelUploadView:
    """Builds the response for an upload."""
    upload = state.upload
    files = [
        UploadFileView(name=file.name, size=file.size, sha256=file.sha256, offset=state.offsets[file.sha256])
        for file in state.files
    ]
    return ModelUploadView(
        id=upload.id, name=upload.name, task=upload.task, files=files, missing=state.missing, created_at=upload.created_at
    )
