"""Whether what the service needs can be used. A check never takes longer than its limit, and runs once at a time.

Each check has a thread of its own, and that of the database a connection of its own: what it says depends neither on how busy
this process is nor on how many ask. A check that takes too long, as on a network share that hangs, is reported as such and left
to end by itself; who asks meanwhile waits for the same one.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import migrations
from service.api.responses.shape import View
from service.broker import Broker
from service.database import Database
from service.own_thread import run_in_own_thread
from service.part_errors import Meaning, meaning_of
from service.settings import Settings
from service.store import Store

_LIMIT_SECONDS = 3.0

logger = logging.getLogger(__name__)


class Check(View):
    """The check of one thing that the service needs."""

    ok: bool
    """Whether it can be used."""
    detail: str
    """Its state, for people."""


class PartCheck:
    """One check, at most once at a time. ``check`` returns what is right, or raises the error of the part."""

    def __init__(self, check: Callable[[], Check], *, limit_seconds: float) -> None:
        self._check, self._limit_seconds = check, limit_seconds
        self._running: Future[Check] | None = None

    async def result(self) -> Check:
        """Starts the check, or joins the one that runs."""
        if self._running is None or self._running.done():
            self._running = run_in_own_thread(self._run, name="readiness")
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._running)), self._limit_seconds)
        except TimeoutError:
            return Check(ok=False, detail=f"did not answer within {self._limit_seconds:g} s")

    def _run(self) -> Check:
        try:
            return self._check()
        except Exception as error:
            if meaning_of(error) is Meaning.OURS:  # as a password that is not Redis's
                logger.exception("a part of the service cannot be used as it is set up")
                return Check(ok=False, detail=f"cannot be used, the log says why ({type(error).__name__})")
            return Check(ok=False, detail=f"does not answer ({type(error).__name__})")


class PartChecks:
    """The checks of one process, by name."""

    def __init__(self, settings: Settings, broker: Broker, store: Store) -> None:
        limit_seconds = min(_LIMIT_SECONDS, settings.database_seconds)
        self._database = Database(settings.database_url, pool_size=1, answer_seconds=limit_seconds)
        checks: dict[str, Callable[[], Check]] = {
            "database": lambda: _database(self._database),
            "redis": lambda: _redis(broker),
            "store": lambda: _store(store),
        }
        self._checks = {name: PartCheck(check, limit_seconds=limit_seconds) for name, check in checks.items()}

    def close(self) -> None:
        """Closes the connection to the database."""
        self._database.close()

    async def results(self) -> dict[str, Check]:
        """Runs all checks beside each other."""
        results = await asyncio.gather(*(check.result() for check in self._checks.values()))
        return dict(zip(self._checks, results, strict=True))


def _database(database: Database) -> Check:
    with database.transaction() as session:
        current = MigrationContext.configure(session.connection()).get_current_revision()
        is_read_only = session.scalar(text("SHOW transaction_read_only")) == "on"
    if current != _head():
        return Check(ok=False, detail=f"is at migration {current}, this version needs {_head()}: run stillhouse migrate")
    if is_read_only:
        return Check(ok=False, detail="takes no writes at this moment")
    return Check(ok=True, detail=f"is at migration {current}")


@cache
def _head() -> str | None:
    return ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()


def _redis(broker: Broker) -> Check:
    broker.ping()
    return Check(ok=True, detail="answers")


def _store(store: Store) -> Check:
    store.ping()
    return Check(ok=True, detail="can be read")
