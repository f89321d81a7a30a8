"""Routes for health checks: liveness and readiness. They need no key and reveal nothing else."""

from typing import Literal

from fastapi import APIRouter, Response

from service.api.dependencies import ServicesOf
from service.api.readiness import Check
from service.api.responses.shape import View

router = APIRouter(tags=["health"])


class Alive(View):
    """The process answers."""

    status: Literal["ok"] = "ok"
    """Always that."""


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
async def readyz(services: ServicesOf, response: Response) -> Readiness:
    """Checks the database (with this version's schema), Redis and the store. 503 only if the database is unavailable.

    Without Redis jobs are still stored, and workers find them at their next sweep.
    """
    checks = await services.part_checks.results()
    if not checks["database"].ok:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
        return Readiness(status="unavailable", checks=checks)
    return Readiness(status="ready" if all(check.ok for check in checks.values()) else "degraded", checks=checks)
