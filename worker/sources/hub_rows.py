"""Streams a dataset of the Hub into shards, in a process of its own.

Invariant: no file is read that is not the repository's, whatever its card and its rows name, and no code of a repository runs.
"""

import re
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import datasets
import fsspec
import pyarrow as pa
from datasets.load import dataset_module_factory
from fsspec.implementations.local import LocalFileSystem
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from service.error_numbers import is_machines_number
from service.errors import InvalidFile
from service.spec.source import HubData, split_hub_data
from worker.sources.data_files import DataFile
from worker.sources.errors import HubAway, SourceRefused
from worker.sources.hub import as_told
from worker.sources.own_process import answer
from worker.sources.streamed_rows import RowFiles, clear, open_streams, write_streams

_READERS = ("arrow", "audiofolder", "csv", "imagefolder", "json", "parquet", "text", "webdataset")
"""Those of the library's modules that may read a repository."""
_OWN_PROTOCOLS = ("hf", "tar", "zip")
"""The library's file systems of the repository itself, and of archives in it."""
_NOT_THERE = "its card names files that are not in the repository: copy them there"
_READ_ERRORS = (datasets.exceptions.DatasetsError, pa.ArrowException, ValueError, TypeError, KeyError)


def convert(request: dict[str, Any]) -> list[Any]:
    """Answers the request of :func:`worker.sources.remote_data.convert_remote`."""
    data, token = split_hub_data(request["source"]), request["token"]
    try:
        _write(data, DataFile.from_json(request["file"]), Path(request["folder"]), request)
    except InvalidFile as error:
        return ["invalid", error.detail]
    except Exception as error:  # noqa: BLE001 - whatever it is, it may hold the token
        return _told(data, error, token)
    return ["done"]


def _write(data: HubData, file: DataFile, folder: Path, request: dict[str, Any]) -> None:
    commit, token = request["revision"], request["token"]
    clear(folder)
    with TemporaryDirectory(dir=folder) as cache:
        files = RowFiles(HfFileSystem(token=token), f"hf://datasets/{data.repository}@{commit}")
        download = datasets.DownloadConfig(token=token, cache_dir=cache)
        found = dataset_module_factory(data.repository, revision=commit, download_config=download)
        reader = found.module_path.rpartition(".")[2]
        if reader not in _READERS:
            raise InvalidFile(f"files of its kind ({reader}) are not read: name a revision that has its rows as Parquet")
        config = _config(data, found.builder_configs_parameters)
        load = partial(datasets.load_dataset_builder, data.repository, config, revision=commit, token=token, cache_dir=cache)
        write_streams(open_streams(load, reader, file, files), file, folder, files=files, numbers=request["numbers"])


def _config(data: HubData, found: Any) -> str:
    """The config that was named, or the only one, or the one that the repository itself makes its default."""
    names = [config.name for config in found.builder_configs or []]
    # The library's own default is also the only config that the card describes, though it lists others.
    marked = found.metadata_configs.get_default_config_name() if found.metadata_configs else None
    name: str | None = data.config or marked or (names[0] if len(names) == 1 else None)
    if name is not None and name in names:
        return name
    shown = ", ".join(f"{data.source}:{each}" for each in names[:20])
    if name is None:
        raise InvalidFile(f"it has several configs: name one of {shown}")
    raise InvalidFile(f"there is no config {name!r}; there are {shown}")


def _told(data: HubData, error: Exception, token: str | None) -> list[Any]:
    """The answer for an error of the libraries, by what it was raised from."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for each in causes:
        if isinstance(each, InvalidFile):
            return ["invalid", each.detail]
        if isinstance(each, datasets.exceptions.DatasetNotFoundError):
            hint = "Name another, or give the service your token (stillhouse hub-token set), or the worker HF_TOKEN."
            return ["refused", f"{data.source} cannot be fetched: it is gone, or is not for this token.", hint]
        if isinstance(each, HfHubHTTPError | ConnectionError | TimeoutError):
            return _answer(as_told(data.source, each, token))
        if isinstance(each, OSError) and each.errno is not None and is_machines_number(each.errno):
            return ["machine", each.errno, each.strerror or ""]
    words = re.sub(r"\s+", " ", str(causes[-1] if isinstance(causes[-1], _READ_ERRORS) else error))[:300]
    if token:
        words = words.replace(token, "…")
    if any(isinstance(each, _READ_ERRORS) for each in causes):
        return ["invalid", f"its rows cannot be read ({words}): correct the files, or name a revision or a config that can"]
    if isinstance(error, OSError):
        return _answer(as_told(data.source, error, token))
    if isinstance(error, RuntimeError) and "script" in words:
        return ["invalid", "it is made by a script of its own, which is never run: name a revision that has its rows as Parquet"]
    return ["failed", f"{type(error).__name__}: {words}"]


def _answer(told: Exception) -> list[Any]:
    match told:
        case SourceRefused():
            return ["refused", told.message, told.hint]
        case HubAway():
            return ["away", told.message, told.hint]
        case OSError():
            return ["machine", told.errno or 0, str(told.strerror or told)]
    return ["failed", type(told).__name__]


def confine() -> None:
    """Has the libraries of this process read the repository at its commit, and nothing that its card may point to."""
    datasets.config.USE_PARQUET_EXPORT = False  # the Hub's own export, and what it tells of columns, may be of another commit
    for protocol in fsspec.available_protocols():
        if protocol not in _OWN_PROTOCOLS:
            is_local = protocol in ("file", "local")
            fsspec.register_implementation(protocol, _ThisHost if is_local else _Elsewhere, clobber=True)


class _Elsewhere(fsspec.AbstractFileSystem):  # type: ignore[misc]
    def __init__(self, *_: object, **__: object) -> None:
        raise InvalidFile(_NOT_THERE)


class _ThisHost(LocalFileSystem):  # type: ignore[misc]
    """The library keeps what it fetches there; which files there are is told to nobody."""

    def glob(self, path: str, *_: object, **__: object) -> NoReturn:
        raise InvalidFile(_NOT_THERE)


if __name__ == "__main__":
    confine()
    answer(convert)
