"""Data of the Hub and of buckets as folders of mapped shards, and whether a spec fits them, which no API can tell.

Invariant: the rows are those of one revision: a commit of the Hub, or for a bucket a digest of what its listing tells of each
file. No file is read that is not the source's own.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.formats import inspect_dataset, inspect_source
from service.spec import JobSpec
from service.spec.data import DatasetInfo, as_declared
from service.spec.fit import check_fit
from service.spec.source import is_remote, split_bucket, split_hub_data, split_source
from worker.sources.data_files import DataFile, data_file
from worker.sources.errors import HubAway, InvalidData, NotOnThisHost, SourceRefused
from worker.sources.own_process import call

DESCRIPTION_FILE = "description.json"
"""What the rows of a folder of shards are as a whole."""
_CHANGED = "Put them back, or submit the job again, which then begins with the new ones."


@dataclass(frozen=True)
class RemoteRows:
    """What is read of a dataset of the Hub, or of a bucket."""

    source: str
    file: DataFile
    numbers: tuple[str, ...] = ()

    def key(self, revision: str) -> str:
        """The key of its shards in the data cache."""
        named: list[Any] = [self.source]
        if split_source(self.source).kind == "hub":
            data = split_hub_data(self.source)
            named = [data.repository, data.config]
        return self.file.key(json.dumps([*named, revision, self.numbers]))


def remote_rows(spec: JobSpec, source: str, *, is_transfer: bool) -> RemoteRows:
    """What a job reads of data of the Hub or of a bucket, or of its transfer rows."""
    is_hub = split_source(source).kind == "hub"
    name = f"{split_hub_data(source).repository}.parquet" if is_hub else split_bucket(source).parts[-1]
    return RemoteRows(source, data_file(spec.dataset, spec.task, name, is_transfer=is_transfer), tuple(spec.dataset.numbers))


def resolve_data(source: str, *, token: Callable[[], str | None], on_poll: Callable[[], None] = lambda: None) -> str:
    """The revision that data of the Hub or of a bucket are at now; ``token`` gives the user's for the Hub, if there is one.

    Raises:
        SourceRefused: they cannot be had.
        HubAway: the Hub, or the bucket, does not answer.
    """
    if split_source(source).kind == "hub":
        from worker.sources.hub import resolve  # its library takes half a second to import

        _require_online(source)
        return resolve(split_hub_data(source).source, token=token(), kind="dataset")
    answered = call("worker.sources.bucket", {"source": source}, on_poll=on_poll)
    match answered:
        case ["revision", str(revision)], _:
            return revision
    raise _as_error(source, answered)


def convert_remote(
    rows: RemoteRows,
    folder: Path,
    *,
    revision: str,
    token: Callable[[], str | None],
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Writes the shards of data at a revision, in a process of its own; what an earlier try left there is removed.

    ``on_poll``, called several times a second meanwhile, may end it by raising.

    Raises:
        SourceRefused: they cannot be had, or not be read as such data, or are no longer at that revision.
        HubAway: the Hub, or the bucket, does not answer.
        OSError: this host cannot, for instance as its disk is full.
    """
    request: dict[str, Any] = {"source": rows.source, "revision": revision, "folder": str(folder)}
    request |= {"file": asdict(rows.file), "numbers": rows.numbers}
    if split_source(rows.source).kind == "hub":
        _require_online(rows.source)
        answered = call("worker.sources.hub_rows", request | {"token": token()}, on_poll=on_poll)
    else:
        answered = call("worker.sources.bucket_rows", request, on_poll=on_poll)
    if answered[0] != ["done"]:
        raise _as_error(rows.source, answered)


def check_remote_data(spec: JobSpec, folders: Mapping[str, Path]) -> None:
    """Checks the spec as the API does where it sees the data. ``folders`` are of shards, by source.

    Raises:
        InvalidData: it does not fit.
    """
    named = [source for source in (spec.dataset.source, spec.dataset.transfer) if source is not None]
    if not any(map(is_remote, named)):
        return
    infos = [_described(spec, source, folders) for source in named]
    if faults := check_fit(spec, infos[0], teachers={}, transfer=infos[1] if len(infos) > 1 else None):
        told = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults)
        raise InvalidData(f"The spec does not fit {named[0]}: {told}", "Correct the spec there.", pointer=faults[0].pointer)


def _described(spec: JobSpec, source: str, folders: Mapping[str, Path]) -> DatasetInfo:
    if is_remote(source):
        return DatasetInfo.model_validate_json((folders[source] / DESCRIPTION_FILE).read_bytes())
    is_transfer = source != spec.dataset.source
    if split_source(source).kind == "builtin":
        return inspect_source(spec, source, find_file=Path, transfer=is_transfer)
    file: dict[str, Any] = asdict(data_file(spec.dataset, spec.task, "", is_transfer=is_transfer))
    info = inspect_dataset(folders[source], **file | {"skip_broken": False})
    return as_declared(info, spec.dataset.numbers)


def _as_error(source: str, answered: tuple[list[Any] | None, int]) -> Exception:
    """What to raise for an answer that is no success."""
    part = "the Hub" if split_source(source).kind == "hub" else "the bucket"
    match answered:
        case ["invalid", detail], _:
            return InvalidData(f"{source}: {detail}", "")
        case ["refused", message, hint], _:
            return SourceRefused(message, hint)
        case ["absent", message, hint], _:
            return NotOnThisHost(message, hint)
        case ["changed"], _:
            return SourceRefused(f"The files of {source} are others than at the job's first attempt.", _CHANGED)
        case ["away", message, hint], _:
            return HubAway(message, hint, part=part)
        case ["machine", number, message], _:
            return OSError(number, message)
        case ["failed", words], _:
            return RuntimeError(f"{source} could not be converted: {words}")
    return HubAway(f"{source} cannot be fetched: its download ended by {answered[1]}.", "It is begun again.", part=part)


def _require_online(source: str) -> None:
    from worker.sources.hub import is_offline

    if is_offline():
        raise NotOnThisHost(
            f"{source} cannot be fetched: the worker is offline and does not have it.",
            "Let the worker go online, or upload the dataset.",
        )
