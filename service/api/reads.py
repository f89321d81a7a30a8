"""Reads of jobs for those who call: one statement reads the callers' keys and the jobs, of all who ask at the same time.

Each statement reads the version of what it is asked for, so no answer is older than what was committed when it was asked for, on
whatever process, a revoked key included. What is kept is how a version of a job is written: while a statement finds that version,
the database does not send the job again, and nobody writes it again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from cachetools import LRUCache
from starlette.concurrency import run_in_threadpool

from service import read_statements
from service.api.coalescing import Coalescer
from service.api.written_jobs import WrittenJob, WrittenJobs
from service.database import Database
from service.errors import NotFound
from service.queries import JobFilter
from service.read_connection import ReadConnection
from service.scheduling.explain import Place
from service.scheduling.queue_status_cache import QueueStatusCache
from service.security import Caller, caller_of, key_digest

_Question = tuple[str, str | None, int | None]
"""The digest of the caller's key, the job, its version as the caller knows it."""
_Page = tuple[JobFilter, str | None, str | None, int]
"""What is wanted, of which owner, the id after which the page begins, how many jobs it holds."""
_Row = Any
_Kept = Mapping[str, WrittenJob]
_LISTS_AT_ONCE = 4
"""Statements for lists, each on a connection of its own: a slow one holds up no poll and few lists."""
_ROWS_AT_ONCE = 50
"""Written without letting others run."""
_PAGES = 1024
"""Whose jobs are remembered, those that were asked for last."""


@dataclass(frozen=True)
class ReadJob:
    """A job as it is sent, and whom it was read for."""

    caller: Caller
    version: int
    body: bytes | None
    """A ``JobView`` in JSON; None if the caller knows this version."""


class Reads:
    """What the process reads for its callers."""

    def __init__(self, database: Database, queue_status_cache: QueueStatusCache) -> None:
        self._database = database
        self._queue_status_cache = queue_status_cache
        self._connection = database.read_connection()
        self._jobs: Coalescer[_Question, tuple[_Row, _Row | WrittenJob]] = Coalescer(self._read_jobs)
        self._written = WrittenJobs()
        self._on_page: LRUCache[_Page, list[str]] = LRUCache(_PAGES)
        """The ids that a page had when it was last read: of which jobs a version may be known."""
        self._list_connections: asyncio.LifoQueue[ReadConnection] = asyncio.LifoQueue()
        for _ in range(_LISTS_AT_ONCE):
            self._list_connections.put_nowait(database.read_connection())
        self._pages: WeakValueDictionary[_Page, Coalescer[_Page, bytes]] = WeakValueDictionary()
        """Of the pages that are being read: who asks for the same page waits with the others, and no error is another's."""

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._connection.aclose()
        while not self._list_connections.empty():
            await self._list_connections.get_nowait().aclose()

    async def caller(self, authorization: str | None) -> Caller:
        """Authenticates by an ``Authorization`` header. Raises Unauthenticated."""
        key, _ = await self._jobs.ask((key_digest(authorization), None, None))
        return caller_of(key)

    async def job(self, job_id: str, authorization: str | None, *, known_version: int | None = None) -> ReadJob:
        """Reads one job for a caller. Raises Unauthenticated, NotFound."""
        key, found = await self._jobs.ask((key_digest(authorization), job_id, known_version))
        caller = caller_of(key)
        if found is None:
            raise NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
        if found.version == known_version:
            return ReadJob(caller, found.version, None)
        return ReadJob(caller, found.version, await self._body(found))

    async def page(self, wanted: JobFilter, *, owner: str | None, after: str | None, limit: int) -> bytes:
        """Reads a page of a list, newest first: a ``JobPage`` in JSON. ``owner``: a user's name."""
        question = (wanted, owner, after, limit)
        pages = self._pages.get(question)
        if pages is None:
            pages = self._pages[question] = Coalescer(self._read_page)
        return await pages.ask(question)

    async def _read_page(self, questions: list[_Page]) -> Mapping[_Page, bytes]:
        question = questions[0]  # they are all the same
        connection = await self._list_connections.get()
        try:
            return {question: await self._page(connection, question)}
        finally:
            self._list_connections.put_nowait(connection)

    async def _page(self, connection: ReadConnection, question: _Page) -> bytes:
        wanted, owner, after, limit = question
        if owner is not None:
            found = await connection.fetch(read_statements.OWNER, {"name": owner})
            wanted = replace(wanted, owner_id=found[0].id if found else "")

        async def fetch(kept: _Kept) -> list[_Row]:
            known_versions = {job_id: written.version for job_id, written in kept.items()}
            statement, parameters = read_statements.page(wanted, after=after, limit=limit + 1, known_versions=known_versions)
            return await connection.fetch(statement, parameters, prepare=False)

        kept, rows = await self._fetch(connection, self._on_page.get(question, ()), fetch)
        self._on_page[question] = [row.id for row in rows[:limit]]
        bodies = []
        for number, row in enumerate(rows[:limit], start=1):
            bodies.append(await self._body(kept[row.id] if row.status is None else row))
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return b'{"object":"list","data":[%b],"has_more":%b}' % (b",".join(bodies), b"true" if len(rows) > limit else b"false")

    async def _read_jobs(self, questions: list[_Question]) -> Mapping[_Question, tuple[_Row, _Row | WrittenJob]]:
        versions: dict[str, int | None] = {}
        for _, job_id, version in questions:
            if job_id is not None:
                versions[job_id] = version if versions.get(job_id, version) == version else None
        digests = json.dumps(list({digest for digest, _, _ in questions}))

        async def fetch(kept: _Kept) -> list[_Row]:
            # What all who ask have, if it is newer than what is kept: then none of them needs more of the job.
            known = versions | {id_: each.version for id_, each in kept.items() if each.version >= (versions[id_] or 0)}
            return await self._connection.fetch(read_statements.JOBS, {"digests": digests, "known_versions": json.dumps(known)})

        kept, rows = await self._fetch(self._connection, versions, fetch)
        keys = {row.sha256: row for row in rows if row.id is None}
        jobs = {row.id: row for row in rows if row.id is not None}
        jobs |= {id_: each for id_, each in kept.items() if id_ in jobs and each.version == jobs[id_].version}
        return {question: (keys.get(question[0]), jobs.get(question[1])) for question in questions}

    async def _fetch(
        self, connection: ReadConnection, ids: Iterable[str], fetch: Callable[[_Kept], Awaitable[list[_Row]]]
    ) -> tuple[_Kept, list[_Row]]:
        """Reads by what is kept of these jobs; once more, without, if it may be of another server than the connection."""
        kept, num_openings = self._written.of(ids), connection.num_openings
        rows = await fetch(kept)
        if connection.num_openings != num_openings:
            self._written.forget()
            if kept:
                kept, rows = {}, await fetch({})
        return kept, rows

    async def _body(self, found: _Row | WrittenJob) -> bytes:
        written = found if isinstance(found, WrittenJob) else self._written.write(found)
        return written.with_place(None if written.queued is None else await self._place(written.queued))

    async def _place(self, row: _Row) -> Place | None:
        recent = self._queue_status_cache.recent(row.pool)
        place = None if recent is None else recent.place(row)
        return place or await run_in_threadpool(self._compute_place, row)

    def _compute_place(self, row: _Row) -> Place | None:
        return self._database.run(lambda session: self._queue_status_cache.place(session, row))
