"""Responses about previews."""

from datetime import datetime
from typing import Literal

from service.api.responses.shape import View
from service.errors import JobFailure
from service.spec.preview import PreviewedSample
from service.spec.warning_message import WarningMessage
from service.tables import Preview

PreviewStatus = Literal["waiting", "running", "succeeded", "failed"]


class PreviewView(View):
    """Some samples of a spec as its networks will read them."""

    id: str
    """``preview_…``."""
    object: Literal["preview"] = "preview"
    """The type of the object."""
    status: PreviewStatus
    """Whether it waits for a worker, is being made, was made, or cannot be."""
    samples: dict[str, list[PreviewedSample]] | None
    """By the role of the network; null before it was made."""
    warnings: list[WarningMessage] | None
    """What of the data takes no part in the job, and what was read otherwise than one might think; null before."""
    error: JobFailure | None
    """Why it cannot be made, as a job's check would say it."""
    created_at: datetime
    """When it was asked for; it is kept for a day."""
    finished_at: datetime | None
    """When it was made, or failed."""


def preview_view(preview: Preview) -> PreviewView:
    """The response that describes a preview."""
    made = preview.result or {}
    if preview.finished_at is None:
        status: Literal["waiting", "running", "succeeded", "failed"] = (
            "waiting" if preview.lease_expires_at is None else "running"
        )
    else:
        status = "succeeded" if preview.error is None else "failed"
    return PreviewView(
        id=preview.id,
        status=status,
        samples=made.get("samples"),
        warnings=made.get("warnings"),
        error=None if preview.error is None else JobFailure.model_validate(preview.error),
        created_at=preview.created_at,
        finished_at=preview.finished_at,
    )


def _status(preview: Preview) -> PreviewStatus:
    if preview.finished_at is None:
        return "waiting" if preview.lease_expires_at is None else "running"
    return "succeeded" if preview.error is None else "failed"
