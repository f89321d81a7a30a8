"""Responses about a job's records: events, metrics, files."""

from datetime import datetime
from typing import Any

from service.api.responses.shape import Listing, Page, View
from service.tables import Artifact, JobEvent


class EventView(View):
    """One thing that happened to a job."""

    seq: int
    """Counts from 1, without gaps."""
    type: str
    """``job.*`` for transitions, ``progress``, ``metrics``, ``checkpoint``."""
    message: str
    """What happened, in words."""
    data: dict[str, Any]
    """The same for programs; its fields depend on the type."""
    created_at: datetime
    """When it happened."""


class EventPage(Page[EventView]):
    """Events in their order."""


class MetricView(View):
    """One metric's points."""

    name: str
    """The network and the metric: ``student/train_loss``."""
    points: list[tuple[int, float]]
    """(step, value), by step."""


class MetricList(Listing[MetricView]):
    """The metrics of a job, by name."""


class ArtifactView(View):
    """A file that a job wrote."""

    name: str
    """Its path: ``student/model.safetensors``."""
    size: int
    """In bytes."""
    sha256: str
    """The SHA-256 of the file, in hexadecimal; in quotes it is the file's ``ETag``."""
    media_type: str
    """The ``Content-Type`` that it is sent with."""


class ArtifactList(Listing[ArtifactView]):
    """The files of a job, by name."""


def event_view(event: JobEvent) -> EventView:
    """Builds the response for a stored event."""
    return EventView(seq=event.seq, type=event.type, message=event.message, data=event.data, created_at=event.created_at)


def artifact_view(artifact: Artifact) -> ArtifactView:
    """Builds the response for a stored file."""
    return ArtifactView(name=artifact.name, size=artifact.size, sha256=artifact.sha256, media_type=artifact.media_type)
