"""Routes for health checks: liveness and readiness. They need no key and reveal nothing else."""

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
    """The check of one thing that the service needs."""

    ok: bool
    """Whether it can be used."""
    detail: str
    """Its state, for people."""


class Readiness(View):
    """Whether the service can be used."""

    status: Literal["ready", "degraded", "unavailable"]
    """``degraded``: jobs can be submitted and read, but something that other requests need is unavailable."""
    checks: dict[str, Check]
    """The checks, by name."""


@router.get("/healthz")
async def healthz() -> Alive:
    """Reports that the process responds."""
    return Alive()


@router.get("/readyz", responses={503: {"description": "The database is unavailable or at another version.", "model": Readiness}})
def readyz(services: ServicesOf, response: Response) -> Readiness:
    """Checks the database (with this version's schema), Redis and the store. 503 only if the database is unavailable.

    Without Redis jobs are still stored, and workers find them at their next sweep.
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
