"""Networks of the Hugging Face Hub: a repository's weights, configs and tokenizer at one commit, never code or pickles.

The library's own environment decides how: ``HF_HOME`` is the cache, ``HF_HUB_OFFLINE`` has it look there alone, ``HF_ENDPOINT``
and ``HF_TOKEN`` say whom it asks and as whom. Invariant: what is loaded is of the commit that is told, so that an attempt that
resumes, and who repeats the job, gets the same network.
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

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from service.spec.source import split_hub
from worker.errors import JobFault
from worker.models.embedding_network import POOLING_FILE

_WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja")
_REFUSALS = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, in a folder of links that holds what is wanted of it and nothing else."""

    folder: Path
    commit: str


def fetch_snapshot(source: str, folder: Path, *, commit: str | None = None) -> Snapshot:
    """What ``hub:REPO[@REVISION]`` names, in ``folder``, which is made; ``commit`` is what the revision was found to be before.

    Raises:
        JobFault: ``input_unavailable``, it cannot be had, and why.
    """
    repository, revision = split_hub(source)
    try:
        path = Path(
            snapshot_download(repository, revision=commit or revision, allow_patterns=list(_WANTED), ignore_patterns=["*/*"])
        )
        snapshot_download(repository, revision=path.name, allow_patterns=[POOLING_FILE.as_posix()])
    except (HfHubHTTPError, OSError) as error:
        raise _unavailable(source, error) from error
    folder.mkdir(parents=True, exist_ok=True)
    for file in path.iterdir():
        link = folder / file.name
        if any(file.match(pattern) for pattern in _WANTED) and not link.exists():
            link.symlink_to(file.resolve())
    if (path / POOLING_FILE).is_file() and not (folder / POOLING_FILE).exists():
        (folder / POOLING_FILE).parent.mkdir(exist_ok=True)
        (folder / POOLING_FILE).symlink_to((path / POOLING_FILE).resolve())
    return Snapshot(folder, path.name)


def is_out_of_reach(fault: JobFault) -> bool:
    """Whether it was the Hub that could not be asked, rather than the Hub that refused."""
    return fault.code == "input_unavailable" and not isinstance(fault.__cause__, _REFUSALS)


def pinned(source: str, commits: Mapping[str, str]) -> str:
    """The source with the commit that was found for it."""
    return f"hub:{split_hub(source)[0]}@{commits[source]}" if source in commits else source


def pinned_spec(spec: JobSpec, commits: Mapping[str, str]) -> JobSpec:
    """The spec by which the job can be repeated: its teachers at the commits that were found."""
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
    is_passing = not isinstance(error, _REFUSALS)
    return JobFault(
        "input_unavailable",
        f"{source} cannot be fetched: {what}.",
        hint=hint,
        retryable=is_passing and not constants.HF_HUB_OFFLINE,
    )
