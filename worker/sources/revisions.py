"""The revision that each source was resolved to: a commit of the Hub, or a digest of a folder's files."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from service.spec.source import split_hub, split_hub_data, split_source

_CHUNK_BYTES = 2**24


def pinned(source: str, revisions: Mapping[str, str]) -> str:
    """The source with the commit that it was resolved to, if it is one of the Hub."""
    if split_source(source).kind != "hub" or source not in revisions:
        return source
    return f"hub:{split_hub(source)[0]}@{revisions[source]}"


def pinned_data(source: str, revisions: Mapping[str, str]) -> str:
    """The source of data with the commit that it was resolved to, if it is one of the Hub."""
    if split_source(source).kind != "hub" or source not in revisions:
        return source
    data = split_hub_data(source)
    return data._replace(revision=revisions[source]).source + ("" if data.config is None else f":{data.config}")


def pinned_spec(spec: JobSpec, revisions: Mapping[str, str]) -> JobSpec:
    """The spec that repeats the job: its networks and data at the commits that they were resolved to."""
    each = [teacher.model_copy(update={"source": pinned(teacher.source, revisions)}) for teacher in spec.teachers.values()]
    student = spec.student.model_copy(update={"source": pinned(spec.student.source, revisions)})
    data = {"source": pinned_data(spec.dataset.source, revisions)}
    if spec.dataset.transfer is not None:
        data["transfer"] = pinned_data(spec.dataset.transfer, revisions)
    spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update=data)})
    return spec.model_copy(update={"teacher": each[0] if isinstance(spec.teacher, TeacherSpec) else each, "student": student})


def network_sources(spec: JobSpec) -> dict[str, str]:
    """The source of each network of the spec, or the word that stands there, by the JSON pointer to it."""
    sources = {f"/{place}/source": teacher.source for place, teacher in spec.teachers.items()}
    return sources | {"/student/source": spec.student.source}


def files_digest(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the name and the SHA-256 of each file of a folder, in any order."""
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()


def folder_digest(folder: Path, *, on_poll: Callable[[], None] = lambda: None) -> str:
    """The :func:`files_digest` of a folder on disk; ``on_poll``, called many times a second, may end it by raising.

    Raises:
        OSError: it cannot be read.
    """
    digests = []
    for path in folder.rglob("*"):
        if path.is_file():
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    on_poll()
            digests.append((path.relative_to(folder).as_posix(), digest.hexdigest()))
    return files_digest(digests)
