"""Networks of the Hugging Face Hub: a repository's weights, configs and tokenizer at one commit, never code or pickles.

The library's own environment variables apply: ``HF_HOME`` is the cache, ``HF_HUB_OFFLINE`` restricts it to that cache,
``HF_ENDPOINT`` and ``HF_TOKEN`` are the server and the credentials. Invariant: the files are those of the commit that is
reported, so that an attempt that resumes, and a repetition of the job, load the same network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from service.error_numbers import is_machines_number
from service.spec import JobSpec
from service.spec.job import TeacherSpec
from service.spec.source import split_hub
from worker.errors import JobFault
from worker.sources.folder_files import CARD_FILE, module_files

_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", CARD_FILE)
_REFUSALS = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, in a folder of links to the files that match the patterns and no others."""

    folder: Path
    commit: str


def fetch_snapshot(source: str, folder: Path, *, commit: str | None = None) -> Snapshot:
    """Fetches ``hub:REPO[@REVISION]`` into the new ``folder``; ``commit`` is what the revision was resolved to before.

    Raises:
        JobFault: ``input_unavailable``, with the reason.
        OSError: this host cannot, for instance as its disk is full.
    """
    repository, revision = split_hub(source)
    try:
        path = Path(
            snapshot_download(repository, revision=commit or revision, allow_patterns=list(_PATTERNS), ignore_patterns=["*/*"])
        )
        if beside := module_files(path):
            snapshot_download(repository, revision=path.name, allow_patterns=[file.as_posix() for file in beside])
    except (HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and is_machines_number(error.errno):
            raise
        raise _unavailable(source, error) from error
    folder.mkdir(parents=True, exist_ok=True)
    for file in path.iterdir():
        link = folder / file.name
        if any(file.match(pattern) for pattern in _PATTERNS) and not link.exists():
            link.symlink_to(file.resolve())
    for file in module_files(path):
        if (path / file).is_file() and not (folder / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).symlink_to((path / file).resolve())
    return Snapshot(folder, path.name)


def is_out_of_reach(fault: JobFault) -> bool:
    """Whether the Hub could not be reached, rather than that it refused the request."""
    return fault.code == "input_unavailable" and not isinstance(fault.__cause__, _REFUSALS)


def pinned(source: str, commits: Mapping[str, str]) -> str:
    """The source with the commit that it was resolved to."""
    return f"hub:{split_hub(source)[0]}@{commits[source]}" if source in commits else source


def pinned_spec(spec: JobSpec, commits: Mapping[str, str]) -> JobSpec:
    """The spec that repeats the job: its teachers at the commits that they were resolved to."""
    each = [teacher.model_copy(update={"source": pinned(teacher.source, commits)}) for teacher in spec.teachers.values()]
    return spec.model_copy(update={"teacher": each[0] if isinstance(spec.teacher, TeacherSpec) else each})


def _unavailable(source: str, error: Exception) -> JobFault:
    repository, revision = split_hub(source)
    match error:
        case GatedRepoError():
            what, hint = f"{repository} is gated", "Ask for access on its page, and give the worker HF_TOKEN."
        case RepositoryNotFoundError():
            what, hint = f"there is no repository {repository}, or it is private", "Correct it, or give the worker HF_TOKEN."
        case RevisionNotFoundError():
            what, hint = f"{repository} has no revision {revision!r}", "Name a branch, a tag or a commit that it has."
        case LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            what, hint = (
                "the worker is offline and does not have it",
                "Fetch it into the worker's HF_HOME, or let it go online.",
            )
        case _:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            what = f"the Hub cannot be reached, or does not answer as it should ({reason})"
            hint = "See whether the worker reaches the Hub, or fetch the repository into its HF_HOME."
    is_transient = not isinstance(error, _REFUSALS)
    return JobFault(
        "input_unavailable",
        f"{source} cannot be fetched: {what}.",
        hint=hint,
        retryable=is_transient and not constants.HF_HUB_OFFLINE,
    )
