"""Runs a job in miniature on a CPU of this host, in a process like a trainer's: its check, or a preview of its samples.

One that takes too long, or fails by itself, is inconclusive and says nothing of the job; what is away is waited for.
"""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.database import Database
from service.errors import NotFound
from service.jobs import Renewal
from service.settings import Settings
from service.spec import JobSpec
from service.spec.source import is_given, split_network
from service.store import Store
from service.tables import Job
from worker.host.access import GaveUpWaiting, LeasedAccess
from worker.host.devices import host_memory_gib
from worker.host.executor import Executor, follow
from worker.host.inputs import InputFetcher, Inputs, hub_token
from worker.host.lease import Lease, LeaseLost
from worker.protocol import LOG_FILE, Assignment, Checked, Event, Failed, Previewed, Stopped
from worker.sources.cache import NetworkCache
from worker.sources.errors import HubAway, NotOnThisHost, SourceRefused
from worker.sources.revisions import network_sources

logger = logging.getLogger(__name__)

_LOG_TAIL_CHARACTERS = 4000
_SHARE_OF_MEMORY = 0.5
"""Of this host's memory, for the networks of a check; larger ones are profiled on the meta device."""
_LEAVING_SECONDS = 5.0
"""How long a worker that drains waits for a part that is away, to say that it gives its work back."""


class _TooLong(Exception):
    """It has used up its time."""


class _Leaving(Exception):
    """It ends because its worker drains, or its process was told to end."""


@dataclass(frozen=True)
class Miniature:
    """A job of which a check, or a preview, is made."""

    id: str
    """Of the job's check, or of the preview: the name of its folder, and of its lease in logs."""
    spec: dict[str, Any]
    owner_id: str
    job_id: str = ""
    num_samples: int | None = None
    """Of a preview; None for a check."""

    @property
    def what(self) -> str:
        """What it is called in messages."""
        return "check" if self.num_samples is None else "preview"

    def __str__(self) -> str:
        return f"{self.what} of {self.job_id}" if self.job_id else self.id


class MiniatureRunner:
    """The miniatures of this worker, one at a time. ``leaving`` tells whether it drains."""

    def __init__(
        self,
        *,
        executor: Executor,
        database: Database,
        store: Store,
        settings: Settings,
        scratch: Path,
        leaving: Callable[[], bool],
    ) -> None:
        self._executor, self._database, self._store = executor, database, store
        self._settings, self._scratch, self._leaving = settings, scratch, leaving

    @contextmanager
    def holding(self, of: Miniature, renew: Callable[[Session], bool]) -> Iterator[LeasedAccess]:
        """Renews the lease for as long as the block runs, and gives access under it."""
        settings = self._settings
        lease = Lease(
            self._database,
            of.id,
            lambda session: Renewal(None, None) if renew(session) else None,
            heartbeat_seconds=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            outage_seconds=settings.lease_outage_seconds,
        )
        with lease:
            yield LeasedAccess(
                of.id,
                database=self._database,
                store=self._store,
                lease=lease,
                leaving=self._leaving,
                grace_seconds=_LEAVING_SECONDS,
                hub_seconds=settings.hub_seconds,
            )

    def run(
        self, of: Miniature, access: LeasedAccess, *, on_event: Callable[[Event], None] = lambda event: None
    ) -> Checked | Previewed | Failed | None:
        """Runs it and removes its files; None if it was told to end before there is a result. Raises LeaseLost, GaveUpWaiting."""
        folder = self._scratch / of.id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._run(of, folder, access, on_event=on_event)
        except _Leaving:
            return None
        except NotFound as error:
            return Failed("input_unavailable", error.detail)
        except (HubAway, NotOnThisHost) as away:  # of data, without which nothing can be read
            return _inconclusive(away.message)
        except SourceRefused as refused:
            details = {} if refused.pointer is None else {"pointer": refused.pointer}
            return Failed(refused.code, refused.message, refused.hint, details)
        except (LeaseLost, GaveUpWaiting):
            raise
        except Exception as error:
            logger.exception("the %s failed", of)
            return _inconclusive(f"the {of.what} itself failed: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(
        self, of: Miniature, folder: Path, access: LeasedAccess, *, on_event: Callable[[Event], None]
    ) -> Checked | Previewed | Failed:
        """Runs it in a process of its own."""
        give_up_at = time.monotonic() + self._settings.preflight_seconds

        def give_up_if_needed() -> None:
            access.require_lease()
            if time.monotonic() > give_up_at + fetcher.conversion_seconds:
                raise _TooLong
            if self._leaving():
                raise _Leaving

        networks = self._settings.network_cache_folder or self._scratch / "network-cache"
        data = self._settings.data_cache_folder or self._scratch / "data-cache"
        try:
            with InputFetcher(
                of.spec,
                folder,
                access=access,
                cache=NetworkCache(networks, max_bytes=self._settings.network_cache_bytes),
                data_cache=NetworkCache(data, max_bytes=self._settings.data_cache_bytes),
                roots=self._settings.file_roots,
                urls=self._settings.data_urls,
                token=lambda: hub_token(access, of.owner_id, self._settings),
                on_poll=give_up_if_needed,
            ) as fetcher:
                assignment = self._assignment(of, folder, access, fetcher.fetch_for_check())
                ending = follow(self._executor.start(assignment), on_event=on_event, on_poll=give_up_if_needed)
        except _TooLong:
            return _inconclusive(f"its {of.what} took more than {self._settings.preflight_seconds:g} s")
        last = ending.last
        if isinstance(last, Stopped):
            raise _Leaving
        if not isinstance(last, Checked | Previewed | Failed):
            last = _inconclusive(f"its {of.what} ended without a result, with exit code {ending.exit_code}")
        if isinstance(last, Failed) and last.retryable:
            log = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:]
            logger.warning("the %s came to nothing: %s\n%s", of, last.message, log)
        return last

    def _assignment(self, of: Miniature, folder: Path, access: LeasedAccess, inputs: Inputs) -> Assignment:
        if of.num_samples is not None:
            _require_networks(of.spec, inputs)
        memory = host_memory_gib()
        known = inputs.paths.keys()
        return Assignment(
            job_id=of.job_id,
            spec=of.spec,
            folder=folder,
            inputs=inputs.paths,
            revisions=inputs.revisions,
            num_threads=1,
            check_only=True,
            preview=of.num_samples,
            planned=access.in_database(lambda session: _planned(session, of.spec, known=known)),
            away=inputs.away,
            most_bytes=None if memory is None else int(memory * 2**30 * _SHARE_OF_MEMORY),
        )


def _require_networks(spec: dict[str, Any], inputs: Inputs) -> None:
    """Raises SourceRefused for a network that is not here: a check does without it, and nobody can show how it reads."""
    for pointer, source in network_sources(JobSpec.model_validate(spec)).items():
        if source in inputs.away:
            raise NotOnThisHost(inputs.away[source], "Try again later.", pointer=pointer)
        if is_given(source) and source not in inputs.paths:
            why = f"{source} is not trained yet, and nobody knows how it will read its samples."
            raise SourceRefused(why, "Ask again once its job has succeeded.", pointer=pointer)


def _planned(session: Session, spec: dict[str, Any], *, known: Collection[str]) -> dict[str, dict[str, Any]]:
    """The specs of jobs whose networks this one uses and that are not trained yet, by source."""
    sources = set(network_sources(JobSpec.model_validate(spec)).values()) - set(known)
    ids = {source: split_network(source).name for source in sources if split_network(source).kind == "job"}
    found = {source: session.get(Job, job_id) for source, job_id in ids.items()}
    return {source: needed.spec for source, needed in found.items() if needed is not None}


def _inconclusive(why: str) -> Failed:
    return Failed("trainer_error", why, retryable=True)
