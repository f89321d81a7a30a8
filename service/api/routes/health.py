"""Whether the process lives, and whether it can serve. Open to everybody; tells nothing but that."""

from pathlib import Path
from typing import Literal

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import APIRouter, Response
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

import migrations
from service.api.dependencies import Services, ServicesOf
from service.api.responses.shape import View

router = APIRouter(tags=["health"])


class Alive(View):
    """The process answers."""

    status: Literal["ok"] = "ok"
    """Always that."""


class Check(View):
    """One thing that the service needs."""

    ok: bool
    """Whether it can be used."""
    detail: str
    """How it is, in words."""


class Readiness(View):
    """Whether the service can be used."""

    status: Literal["ready", "degraded", "unavailable"]
    """``degraded``: submits and reads work, but something is away that they do not need at once."""
    checks: dict[str, Check]
    """What it needs, by name."""


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether the process answers at all."""
    return Alive()


@router.get("/readyz", responses={503: {"description": "The database is away or not at this version.", "model": Readiness}})
def readyz(services: ServicesOf, response: Response) -> Readiness:
    """Whether the database (at this version's schema), Redis and the store answer; 503 without the database alone.

    Without Redis jobs are still stored, and workers find them by themselves a sweep later.
    """
    checks = {"database": _database(services), "redis": _redis(services), "store": _store(services)}
    if not checks["database"].ok:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
        return Readiness(status="unavailable", checks=checks)
    return Readiness(status="ready" if all(check.ok for check in checks.values()) else "degraded", checks=checks)


def _database(services: Services) -> Check:
    head = ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()
    try:
        with services.database.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        return Check(ok=False, detail=f"does not answer ({type(error).__name__})")
    if current != head:
        return Check(ok=False, detail=f"is at migration {current}, this version needs {head}: run stillhouse migrate")
    return Check(ok=True, detail=f"is at migration {head}")


def _redis(services: Services) -> Check:
    try:
        services.broker.ping()
    except RedisError as error:
        return Check(ok=False, detail=f"does not answer ({type(error).__name__}); waiting jobs start a little later")
    return Check(ok=True, detail="answers")


def _store(services: Services) -> Check:
    try:
        services.store.ping()
    except OSError as error:
        return Check(ok=False, detail=f"cannot be read ({type(error).__name__})")
    return Check(ok=True, detail="can be read")
