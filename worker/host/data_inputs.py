"""Fetches the data that a spec names into the data cache of this host, as folders of mapped shards; see :mod:`worker.sources`.

Invariant: what was fetched is checked by its SHA-256, and stays in the cache until it is let go.
"""

import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from service.data_urls import require_allowed
from service.errors import InvalidFile, NotFound
from service.file_roots import allowed_file
from service.formats.shards.index import ARROW, INDEX_FILE, PARQUET
from service.formats.shards.mapped import map_shard
from service.part_errors import HostDiskFull
from service.spec import JobSpec
from service.spec.source import is_remote, split_source
from service.tables import Dataset
from worker.host.access import Access
from worker.sources.cache import NetworkCache
from worker.sources.data_files import DataFile, convert, data_file, hold_file, telling
from worker.sources.errors import SourceRefused
from worker.sources.remote_data import check_remote_data, convert_remote, remote_rows, resolve_data
from worker.sources.revisions import files_digest

logger = logging.getLogger(__name__)
_TRIES = 3
_ON_EVERY_HOST = (
    "Mount it on every host, where the STILLHOUSE_FILE_ROOTS of the worker allow it as those of the API do, or upload it instead."
)
_AS_THE_API = "Let the STILLHOUSE_DATA_URLS of the worker allow it as those of the API do, or upload it instead."


class DataFetcher:
    """Fetches the data of one job, which stay in the cache until ``held`` is closed.

    ``folder`` is the job's own. ``on_poll`` is called several times a second, and may end it by raising; while a file is
    converted it is what ``converting`` yields.
    """

    def __init__(
        self,
        spec: JobSpec,
        folder: Path,
        *,
        access: Access,
        cache: NetworkCache,
        roots: Sequence[Path],
        held: ExitStack,
        on_poll: Callable[[], None],
        converting: Callable[[], AbstractContextManager[Callable[[], None]]],
        urls: Sequence[str],
        token: Callable[[], str | None],
        noted: Mapping[str, str],
    ) -> None:
        self._urls, self._token, self._noted = urls, token, noted
        self.revisions: dict[str, str] = {}
        """Of those of the Hub and of buckets."""
        self._spec, self._folder, self._access, self._cache, self._roots = spec, folder, access, cache, roots
        self._held, self._on_poll, self._converting = held, on_poll, converting

    def fetch(self) -> dict[str, Path]:
        """The folder of shards of each source that is not built in.

        Raises:
            NotFound: an uploaded dataset is gone, or its files in the store are not what was recorded.
            SourceRefused: a file is gone, may not be read here, or holds no such data, or the spec does not fit data that the API
                does not see.
            HubAway: the Hub, or a bucket, did not come back.
        """
        dataset = self._spec.dataset
        found = {}
        for pointer, source in (("/dataset/source", dataset.source), ("/dataset/transfer", dataset.transfer)):
            if source is None or split_source(source).kind == "builtin":
                continue
            try:
                found[source] = self._fetch(source)
            except SourceRefused as refused:
                refused.pointer = refused.pointer or pointer
                raise
        check_remote_data(self._spec, found)
        return found

    def _fetch(self, source: str) -> Path:
        kind, name = split_source(source)
        is_transfer = source != self._spec.dataset.source
        if kind == "dataset":
            row = self._access.in_database(lambda session: session.get(Dataset, name))
            if row is None:
                raise NotFound(f"dataset {name} was deleted; upload it again and submit the job with its new id")
            if row.files is not None:
                return self._shards(row.files)
            file = data_file(self._spec.dataset, self._spec.task, row.filename, is_transfer=is_transfer)
            return self._hold(file.key(row.sha256), partial(self._convert_upload, source, row, file), num_bytes=row.bytes)
        if is_remote(source):
            return self._access.in_hub(partial(self._remote, source, is_transfer=is_transfer))
        with on_this_host(source):
            path = allowed_file(name, self._roots)
        file = data_file(self._spec.dataset, self._spec.task, path.name, is_transfer=is_transfer)
        with self._converting() as on_poll:
            return self._held.enter_context(hold_file(self._cache, source, path, file, on_poll=on_poll))

    def _remote(self, source: str, *, is_transfer: bool) -> Path:
        if split_source(source).kind == "s3":
            with on_this_host(source, _AS_THE_API):
                require_allowed(source, self._urls)
        rows = remote_rows(self._spec, source, is_transfer=is_transfer)
        with self._converting() as on_poll:
            if (revision := self._noted.get(source)) is None:
                revision = resolve_data(source, token=self._token, on_poll=on_poll)
            self.revisions[source] = revision
            fetch = partial(convert_remote, rows, revision=revision, token=self._token, on_poll=on_poll)
            return self._held.enter_context(self._cache.hold(rows.key(revision), fetch, on_wait=on_poll))

    def _shards(self, files: Sequence[dict[str, Any]]) -> Path:
        key = f"shards:{files_digest((file['name'], file['sha256']) for file in files)}"
        return self._hold(key, partial(self._fetch_shards, files), num_bytes=sum(file["size"] for file in files))

    def _fetch_shards(self, files: Sequence[dict[str, Any]], folder: Path) -> None:
        for file in sorted(files, key=lambda file: file["name"] != INDEX_FILE):
            target = folder / file["name"]
            if target.suffix == PARQUET and target.with_suffix(ARROW).exists():
                continue  # from an earlier try
            self._fetch_file(file, target)
            if target.suffix == PARQUET:
                map_shard(target)

    def _convert_upload(self, source: str, row: Dataset, file: DataFile, folder: Path) -> None:
        """Converts what was uploaded before there were shards."""
        original = self._folder / row.id
        try:
            self._fetch_file({"path": row.path, "sha256": row.sha256}, original)
            with telling(source), self._converting() as on_poll:
                convert(file, original, folder, on_poll=on_poll)
        finally:
            original.unlink(missing_ok=True)

    def _fetch_file(self, file: dict[str, Any], target: Path) -> None:
        """Fetches a file, once more if it did not arrive as it was stored."""
        for tries_left in reversed(range(_TRIES)):
            self._on_poll()
            try:
                self._access.in_store(partial(self._access.store.fetch, file["path"], target, sha256=file["sha256"]))
                return
            except HostDiskFull as full:
                raise OSError(errno.ENOSPC, str(full)) from full  # the cache may make room
            except NotFound as error:
                if not tries_left:
                    raise
                logger.warning("%s; it is fetched again", error.detail)

    def _hold(self, key: str, fetch: Callable[[Path], None], *, num_bytes: int) -> Path:
        return self._held.enter_context(self._cache.hold(key, fetch, num_bytes=num_bytes, on_wait=self._on_poll))


@contextmanager
def on_this_host(source: str, hint: str = _ON_EVERY_HOST) -> Iterator[None]:
    """Raises SourceRefused for a file or a folder that this host lacks, or may not read."""
    try:
        yield
    except InvalidFile as error:
        raise SourceRefused(f"{source} cannot be read on this host: {error.detail}.", hint) from error
