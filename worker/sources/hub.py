"""Networks of the Hugging Face Hub: a repository's weights, configs and tokenizer at one commit, never code or pickles.

The library's own environment variables apply: ``HF_HOME`` is its cache, ``HF_HUB_OFFLINE`` restricts it to that cache,
``HF_ENDPOINT`` and ``HF_TOKEN`` are the server and the credentials of who gives none. Invariants: the files are those of the
commit that is told, so that an attempt that resumes, and a repetition of the job, load the same network; no error that leaves
this module holds, or was raised from, one that knows the token.
"""

import hashlib
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from service.error_numbers import is_machines_number
from service.spec.source import split_hub
from worker.sources.errors import HubAway, NotOnThisHost, SourceRefused
from worker.sources.folder_files import CARD_FILE, module_files

_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", CARD_FILE)
_WEIGHTS = (".safetensors", ".gguf")
_ANSWER_SECONDS = 10.0
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_SHA256 = re.compile("[0-9a-f]{64}")
"""The library names a large file by it, as the Hub lists it."""
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+(?=@)|(?<=\?)[^\s'\"]+")
"""What an address may permit, to whoever has it: a name with a password, and the query, by which storage signs it."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, in a folder of the files that match the patterns and no others."""

    folder: Path
    commit: str


def is_offline() -> bool:
    """Whether the library's cache is all that there is."""
    return bool(constants.HF_HUB_OFFLINE)


def resolve(source: str, *, token: str | None = None, kind: Literal["model", "dataset"] = "model") -> str:
    """The commit that ``hub:REPO[@REVISION]`` means now, for whoever may read its files.

    Raises:
        SourceRefused: there is none, or it is not this token's to read.
        HubAway: the Hub does not answer.
    """
    repository, revision = split_hub(source)
    try:
        ask = HfApi(token=token).dataset_info if kind == "dataset" else HfApi(token=token).model_info
        info = ask(repository, revision=revision, timeout=_ANSWER_SECONDS)
        commit = info.sha or ""
        names = [file.rfilename for file in info.siblings or []]
        # What is in a gated repository, everybody may know, and read its card; its other files are not everybody's.
        guarded = [name for name in names if not name.startswith(".") and name != CARD_FILE]
        guarded.sort(key=lambda name: not name.endswith(_WEIGHTS))
        with suppress(EntryNotFoundError):
            url = hf_hub_url(repository, (guarded or ["config.json"])[0], repo_type=kind, revision=commit)
            get_hf_file_metadata(url, token=token, timeout=_ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001 - whatever it is, it may hold the token
        raise as_told(source, error, token) from None
    return commit


def fetch_snapshot(
    source: str,
    folder: Path,
    *,
    commit: str | None = None,
    token: str | None = None,
    library: Path | None = None,
    only_local: bool = False,
) -> Snapshot:
    """Fetches ``hub:REPO[@REVISION]`` into ``folder``; ``commit`` is what the revision was resolved to before.

    The folder is of links into the library's own cache. With ``library``, a new folder that the library uses instead, it is of
    files, which are compared with the SHA-256 that the Hub tells, and ``library`` is gone. ``only_local`` asks no Hub.

    Raises:
        SourceRefused: it cannot be had, or NotOnThisHost.
        HubAway: the Hub does not answer.
        OSError: this host cannot, for instance as its disk is full.
    """
    repository, revision = split_hub(source)
    options: dict[str, Any] = {"cache_dir": library, "token": token, "local_files_only": only_local}
    try:
        patterns = list(_PATTERNS)
        path = Path(
            snapshot_download(
                repository, revision=commit or revision, allow_patterns=patterns, ignore_patterns=["*/*"], **options
            )
        )
        beside = module_files(path)
        more = [file.as_posix() for file in beside]
        if not (only_local or is_offline() or any(path.glob("*.safetensors"))):
            more += _only_gguf(repository, path.name, token=token)
        if more:
            snapshot_download(repository, revision=path.name, allow_patterns=more, **options)
    except Exception as error:  # noqa: BLE001 - whatever it is, it may hold the token
        raise as_told(source, error, token) from None
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(file.name) for file in path.iterdir() if any(file.match(pattern) for pattern in (*_PATTERNS, "*.gguf"))]
    for name in [*names, *(file for file in beside if (path / file).is_file())]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = (path / name).resolve()
        if library is not None:
            _verify(content, source)
            content.replace(folder / name)
        elif not (folder / name).exists():
            (folder / name).symlink_to(content)
    if library is not None:
        shutil.rmtree(library)
    return Snapshot(folder, path.name)


def _only_gguf(repository: str, commit: str, *, token: str | None) -> list[str]:
    """The GGUF file of a repository that has one; of several nobody has said which, and each is large."""
    names = HfApi(token=token).list_repo_files(repository, revision=commit)
    found = [name for name in names if name.endswith(".gguf") and "/" not in name]
    return found if len(found) == 1 else []


def _verify(content: Path, source: str) -> None:
    if not _SHA256.fullmatch(content.name):
        return
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != content.name:
        content.unlink()
        raise HubAway(f"{source} cannot be fetched: a file arrived damaged.", "It is fetched again.")


def as_told(source: str, error: Exception, token: str | None) -> Exception:
    """What to raise for an error of the library."""
    repository, revision = split_hub(source)
    refused = f"{source} cannot be fetched: "
    match error:
        case GatedRepoError():
            return SourceRefused(
                f"{refused}{repository} is gated.",
                "Ask for access on its page, and give the service your token (stillhouse hub-token set), or the worker HF_TOKEN.",
            )
        case RepositoryNotFoundError():
            return SourceRefused(
                f"{refused}there is no repository {repository}, or it is private.",
                "Correct it, or give the service your token (stillhouse hub-token set), or the worker HF_TOKEN.",
            )
        case RevisionNotFoundError():
            return SourceRefused(
                f"{refused}{repository} has no revision {revision!r}.", "Name a branch, a tag or a commit that it has."
            )
        case HfHubHTTPError() if (status := error.response.status_code) < HTTPStatus.INTERNAL_SERVER_ERROR and (
            status not in _PASSING
        ):
            return SourceRefused(f"{refused}the Hub refuses it by {status}.", "See whether the token may read it.")
        case LocalEntryNotFoundError() | ConnectionError() if is_offline():
            return NotOnThisHost(
                f"{refused}the worker is offline and does not have it.",
                "Fetch it into the worker's HF_HOME, or let it go online.",
            )
        case OSError() if error.errno is not None and is_machines_number(error.errno):
            return OSError(error.errno, error.strerror, error.filename)
    reason = _CREDENTIALS.sub("…", next(iter(str(error).splitlines()), type(error).__name__))[:300]
    if token:
        reason = reason.replace(token, "…")
    return HubAway(
        f"{refused}the Hub cannot be reached, or does not answer as it should ({reason}).",
        "See whether the worker reaches the Hub, or fetch the repository into its HF_HOME.",
    )
