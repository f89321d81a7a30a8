"""Fetches what a spec names to this host: data and networks into its caches.

Invariant: a trainer needs no connection. Of each network it gets a folder, and the revision that the folder is of; an attempt
gets the revisions that the job's first attempt has noted.
"""

import errno
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import and_, select

from service import secrets
from service.file_roots import allowed_folder
from service.part_errors import HostDiskFull
from service.secrets import SecretUnreadable
from service.settings import Settings
from service.spec import JobSpec
from service.spec.source import NetworkSource, is_given, split_hub, split_network, split_source
from service.tables import Model
from worker.host.access import Access
from worker.host.data_inputs import DataFetcher, on_this_host
from worker.sources.cache import NetworkCache
from worker.sources.conversion import plain_folder
from worker.sources.download import download
from worker.sources.errors import HubAway, NotOnThisHost, SourceRefused
from worker.sources.hub import Snapshot, fetch_snapshot, is_offline, resolve
from worker.sources.revisions import files_digest, folder_digest, network_sources

logger = logging.getLogger(__name__)
_HOW_TO_BE_READ = (
    "This worker cannot read your token: let its operator give API and workers one STILLHOUSE_SECRET_KEY, or, if it has "
    "changed since, set the token again (stillhouse hub-token set)."
)


@dataclass
class Inputs:
    """What was fetched, by source."""

    paths: dict[str, Path] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    """Of the networks, and of data of the Hub and of buckets."""
    away: dict[str, str] = field(default_factory=dict)
    """For a check: why a network of the Hub cannot be had here and now."""


class InputFetcher:
    """Fetches the inputs of one job, which stay in the caches until the ``with`` block ends.

    ``roots`` are the folders under which ``file:PATH`` may lie on this host, ``urls`` the prefixes of ``s3://BUCKET/PATH``.
    ``token`` gives that of the job's owner for the Hub.
    ``revisions`` are those that an earlier attempt has noted. ``on_poll`` is called several times a second while a network is
    fetched, which it ends by raising.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        folder: Path,
        *,
        access: Access,
        cache: NetworkCache,
        data_cache: NetworkCache,
        roots: Sequence[Path],
        urls: Sequence[str] = (),
        token: Callable[[], str | None] = lambda: None,
        on_poll: Callable[[], None] = lambda: None,
        revisions: Mapping[str, str] | None = None,
    ) -> None:
        self._spec, self._folder, self._access = JobSpec.model_validate(spec), folder, access
        self._cache, self._roots, self._token = cache, roots, token
        self._on_poll, self._noted = on_poll, revisions or {}
        self._held = ExitStack()
        self._data = DataFetcher(
            self._spec,
            folder / "inputs",
            access=access,
            cache=data_cache,
            roots=roots,
            held=self._held,
            on_poll=on_poll,
            converting=self._converting,
            urls=urls,
            token=self._read_token,
            noted=self._noted,
        )
        self._is_unread = False
        self.conversion_seconds = 0.0
        """How long data and networks have been converted by now, for this job and all that follow it on this host."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._held.close()

    def fetch(self) -> Inputs:
        """Fetches everything for an attempt, and waits for a Hub that is away.

        Raises:
            NotFound: a dataset is gone.
            SourceRefused: a file or a network is gone, may not be read here, or is not what it was for an earlier attempt.
            HubAway: the Hub did not come back.
        """
        inputs = self._fetch_data()
        for pointer, source in self._networks():
            found = self._access.in_hub(partial(self._fetch_network, pointer, source))
            if found is None:
                raise _gone(pointer, source)
            inputs.paths[source], inputs.revisions[source] = found
        return inputs

    def fetch_for_check(self) -> Inputs:
        """Fetches what there is by now: no network of a job that has not finished, and none that only this host cannot have now.

        Raises:
            NotFound, SourceRefused: as :meth:`fetch` does.
        """
        inputs = self._fetch_data()
        for pointer, source in self._networks():
            try:
                found = self._fetch_network(pointer, source)
            except (HubAway, NotOnThisHost) as away:
                inputs.away[source] = away.message
                continue
            if found is not None:
                inputs.paths[source], inputs.revisions[source] = found
            elif split_source(source).kind == "model":
                raise _gone(pointer, source)
        return inputs

    def _fetch_data(self) -> Inputs:
        try:
            return Inputs(paths=self._data.fetch(), revisions=dict(self._data.revisions))
        except SourceRefused as refused:
            if self._is_unread and refused.code == SourceRefused.code:
                refused.hint = _HOW_TO_BE_READ
            raise

    def _networks(self) -> list[tuple[str, str]]:
        """Each network that exists, once, behind the pointer to it."""
        by_source = {source: pointer for pointer, source in network_sources(self._spec).items() if is_given(source)}
        return [(pointer, source) for source, pointer in by_source.items()]

    def _fetch_network(self, pointer: str, source: str) -> tuple[Path, str] | None:
        """The folder of a network and its revision; None for a stored one without a row."""
        network = split_network(source)
        try:
            if network.kind == "hub":
                found: tuple[Path, str] | None = self._from_hub(source)
            else:
                found = self._named_folder(source, network.name) if network.kind == "file" else self._stored(network)
            return None if found is None else (self._plain(source, found[0]), found[1])
        except SourceRefused as refused:
            refused.pointer = pointer
            if network.kind == "hub" and self._is_unread:
                refused.hint = _HOW_TO_BE_READ
            raise

    def _stored(self, network: NetworkSource) -> tuple[Path, str] | None:
        is_it = Model.id == network.name
        if network.kind == "job":
            is_it = and_(Model.job_id == network.name, Model.part == network.part)
        row = self._access.in_database(lambda session: session.scalar(select(Model).where(is_it)))
        if row is None:
            return None
        revision = files_digest((file["name"], file["sha256"]) for file in row.files)
        num_bytes = sum(file["size"] for file in row.files)
        return self._hold(f"files:{revision}", partial(self._fetch_files, row), num_bytes=num_bytes), revision

    def _fetch_files(self, row: Model, folder: Path) -> None:
        store = self._access.store
        for file in row.files:
            self._on_poll()
            try:
                self._access.in_store(partial(store.fetch, file["path"], folder / file["name"], sha256=file["sha256"]))
            except HostDiskFull as full:
                raise OSError(errno.ENOSPC, str(full)) from full  # the cache may make room

    def _named_folder(self, source: str, name: str) -> tuple[Path, str]:
        with on_this_host(source):
            folder = allowed_folder(name, self._roots)
        revision = folder_digest(folder, on_poll=self._on_poll)
        if self._noted.get(source, revision) != revision:
            raise SourceRefused(
                f"The files of {source} are others than at the job's first attempt.",
                "Put them back, or submit the job again, which then begins with the new ones.",
            )
        return folder, revision

    def _from_hub(self, source: str) -> tuple[Path, str]:
        links = self._folder / "inputs" / hashlib.sha256(source.encode()).hexdigest()[:16]
        noted = self._noted.get(source)
        if is_offline():
            return _in(fetch_snapshot(source, links, commit=noted))
        try:
            token = self._read_token()
            commit = noted or resolve(source, token=token)
            fetch = partial(download, source, commit=commit, token=token, on_poll=self._on_poll)
            return self._hold(f"hub:{split_hub(source)[0]}@{commit}", fetch), commit
        except HubAway:
            try:
                return _in(fetch_snapshot(source, links, commit=noted, only_local=True))
            except HubAway:
                pass
            raise

    def _plain(self, source: str, folder: Path) -> Path:
        """The network as a plain folder."""
        with self._converting() as on_poll:
            return self._held.enter_context(plain_folder(folder, source=source, cache=self._cache, on_poll=on_poll))

    @contextmanager
    def _converting(self) -> Iterator[Callable[[], None]]:
        """Counts the time of the block, as far as what it yields was called meanwhile."""
        begun, before = time.monotonic(), self.conversion_seconds

        def on_poll() -> None:
            self.conversion_seconds = before + time.monotonic() - begun
            self._on_poll()

        yield on_poll

    def _read_token(self) -> str | None:
        try:
            return self._token()
        except SecretUnreadable as error:  # what everybody may read can be had all the same
            logger.warning("%s", error)
            self._is_unread = True
            return None

    def _hold(self, key: str, fetch: Callable[[Path], None], *, num_bytes: int = 0) -> Path:
        return self._held.enter_context(self._cache.hold(key, fetch, num_bytes=num_bytes, on_wait=self._on_poll))


def hub_token(access: Access, owner_id: str, settings: Settings) -> str | None:
    """The token that a user, a job's owner, has for the Hub, decrypted; None for that of this host, if it has one.

    Raises:
        SecretUnreadable: the key of this host is another one.
    """
    key = settings.secret_key.get_secret_value()
    return access.in_database(lambda session: secrets.read(session, owner_id, secrets.HUB_TOKEN, key=key))


def _in(snapshot: Snapshot) -> tuple[Path, str]:
    return snapshot.folder, snapshot.commit


def _gone(pointer: str, source: str) -> SourceRefused:
    return SourceRefused(f"{source} has no stored network any more.", "Name another.", pointer=pointer)
