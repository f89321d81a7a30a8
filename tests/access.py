"""Access to a store and a Hub without a lease, as a host's: what is away is not waited for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from service.store import Store
from worker.host.inputs import InputFetcher, Inputs
from worker.sources.cache import NetworkCache

T = TypeVar("T")


@dataclass
class DirectAccess:
    """Without a database."""

    store: Store

    def in_database(self, work: Callable[[Session], T]) -> T:
        with Session() as unbound:
            return work(unbound)

    def in_store(self, work: Callable[[], T]) -> T:
        return work()

    def in_hub(self, work: Callable[[], T]) -> T:
        return work()


def fetched_for_check(document: dict[str, Any], folder: Path) -> Inputs:
    """What a host gives to a check whose files are in ``folder``."""
    access = DirectAccess(Store(f"file://{folder}/store"))
    with InputFetcher(document, folder, access=access, **_caches(folder), roots=[Path("/")]) as fetcher:
        return fetcher.fetch_for_check()


def fetched(
    document: dict[str, Any], folder: Path, *, revisions: dict[str, str] | None = None, urls: Sequence[str] = ()
) -> Inputs:
    """What a host gives to the trainer of an attempt whose files are in ``folder``."""
    access = DirectAccess(Store(f"file://{folder}/store"))
    options: Any = _caches(folder) | {"roots": [Path("/")], "urls": urls, "revisions": revisions}
    with InputFetcher(document, folder, access=access, **options) as fetcher:
        return fetcher.fetch()


def _caches(folder: Path) -> Any:
    names = {"cache": "network-cache", "data_cache": "data-cache"}
    return {name: NetworkCache(folder.parent / of_name, max_bytes=2**30) for name, of_name in names.items()}
