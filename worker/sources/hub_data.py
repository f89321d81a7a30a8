"""Datasets of the Hugging Face Hub as folders of mapped shards, and whether a spec fits them, which no API can tell.

Invariant: the rows are those of one commit; no code of a repository runs, and no file is read that is not the repository's.
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
from service.spec.source import split_hub_data, split_source
from worker.sources.data_files import DataFile, data_file
from worker.sources.errors import HubAway, InvalidData, NotOnThisHost, SourceRefused
from worker.sources.own_process import call

DESCRIPTION_FILE = "description.json"
"""What the rows of a folder of shards are as a whole."""


@dataclass(frozen=True)
class HubRows:
    """What is read of a dataset of the Hub."""

    source: str
    file: DataFile
    numbers: tuple[str, ...] = ()

    def key(self, commit: str) -> str:
        """The key of its shards in the data cache."""
        data = split_hub_data(self.source)
        return self.file.key(json.dumps([data.repository, commit, data.config, self.numbers]))


def hub_data(spec: JobSpec, source: str, *, is_transfer: bool) -> HubRows:
    """What a job reads of a dataset of the Hub, or of its transfer rows."""
    name = f"{split_hub_data(source).repository}.parquet"
    return HubRows(source, data_file(spec.dataset, spec.task, name, is_transfer=is_transfer), tuple(spec.dataset.numbers))


def resolve_data(source: str, *, token: str | None) -> str:
    """The commit that a dataset of the Hub is at now. Raises SourceRefused and HubAway, as :func:`worker.sources.hub.resolve`."""
    from worker.sources.hub import is_offline, resolve  # its library takes half a second to import

    if is_offline():
        raise _offline(source)
    return resolve(split_hub_data(source).source, token=token, kind="dataset")


def convert_hub(
    rows: HubRows, folder: Path, *, commit: str, token: Callable[[], str | None], on_poll: Callable[[], None] = lambda: None
) -> None:
    """Writes the shards of a dataset at a commit, in a process of its own; what an earlier try left there is removed.

    ``on_poll``, called several times a second meanwhile, may end it by raising.

    Raises:
        SourceRefused: it cannot be had, or not be read as such data.
        HubAway: the Hub does not answer.
        OSError: this host cannot, for instance as its disk is full.
    """
    from worker.sources.hub import is_offline

    if is_offline():
        raise _offline(rows.source)
    request: dict[str, Any] = {"source": rows.source, "commit": commit, "token": token(), "folder": str(folder)}
    request |= {"file": asdict(rows.file), "numbers": rows.numbers}
    match call("worker.sources.hub_rows", request, on_poll=on_poll):
        case ["done"], _:
            pass
        case ["invalid", detail], _:
            raise InvalidData(f"{rows.source}: {detail}", "")
        case ["refused", message, hint], _:
            raise SourceRefused(message, hint)
        case ["away", message, hint], _:
            raise HubAway(message, hint)
        case ["machine", number, message], _:
            raise OSError(number, message)
        case ["failed", words], _:
            raise RuntimeError(f"{rows.source} could not be converted: {words}")
        case _, exit_code:
            raise HubAway(f"{rows.source} cannot be fetched: its download ended by {exit_code}.", "It is begun again.")


def check_hub_data(spec: JobSpec, folders: Mapping[str, Path]) -> None:
    """Checks the spec as the API does where it sees the data. ``folders`` are of shards, by source.

    Raises:
        InvalidData: it does not fit.
    """
    named = [source for source in (spec.dataset.source, spec.dataset.transfer) if source is not None]
    if all(split_source(source).kind != "hub" for source in named):
        return
    infos = [_described(spec, source, folders) for source in named]
    if faults := check_fit(spec, infos[0], teachers={}, transfer=infos[1] if len(infos) > 1 else None):
        told = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults)
        raise InvalidData(f"The spec does not fit {named[0]}: {told}", "Correct the spec there.", pointer=faults[0].pointer)


def _described(spec: JobSpec, source: str, folders: Mapping[str, Path]) -> DatasetInfo:
    if split_source(source).kind == "hub":
        return DatasetInfo.model_validate_json((folders[source] / DESCRIPTION_FILE).read_bytes())
    is_transfer = source != spec.dataset.source
    if split_source(source).kind == "builtin":
        return inspect_source(spec, source, find_file=Path, transfer=is_transfer)
    file: dict[str, Any] = asdict(data_file(spec.dataset, spec.task, "", is_transfer=is_transfer))
    info = inspect_dataset(folders[source], **file | {"skip_broken": False})
    return as_declared(info, spec.dataset.numbers)


def _offline(source: str) -> NotOnThisHost:
    return NotOnThisHost(
        f"{source} cannot be fetched: the worker is offline and does not have it.",
        "Let the worker go online, or upload the dataset.",
    )
