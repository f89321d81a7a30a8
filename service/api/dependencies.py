"""Dependencies of routes: the services of the process, and the caller. Each role is a type: ``Viewer``, ``Member``, ``Admin``."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from service.api.readiness import PartChecks
from service.api.reads import Reads
from service.api.store_calls import StoreCalls
from service.api.waiting import Watches
from service.broker import Broker
from service.database import Database
from service.scheduling.queue_status_cache import QueueStatusCache
from service.security import Caller, Role
from service.settings import Settings
from service.store import Store


@dataclass(frozen=True)
class Services:
    """The services that the process keeps open during the application's lifespan."""

    settings: Settings
    database: Database
    broker: Broker
    store: Store
    store_calls: StoreCalls
    ingests: StoreCalls
    """Of uploads, which take their time."""
    watches: Watches
    queue_status_cache: QueueStatusCache
    reads: Reads
    part_checks: PartChecks


async def services_of(request: Request) -> Services:
    """Returns the services of the application that handles this request."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]


class _Key(SecurityBase):
    """The security scheme. A role is one dependency, not a chain: FastAPI takes its time for each."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(
            description="An API key: `Authorization: Bearer sh_…`. An admin makes one with POST /v1/keys."
        )
        self.scheme_name = "key"


class _Header(_Key):
    async def __call__(self, request: Request) -> str | None:
        return request.headers.get("authorization")


class _Authenticated(_Key):
    """Authenticates the caller, of whom it requires a role."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self._role = role

    async def __call__(self, request: Request) -> Caller:
        services = await services_of(request)
        caller = await services.reads.caller(request.headers.get("authorization"))
        caller.require(self._role)
        return caller


Authorization = Annotated[str | None, Security(_Header())]
"""The header, for what reads the caller together with something else."""
Viewer = Annotated[Caller, Security(_Authenticated("viewer"))]
"""Any valid key will do."""
Member = Annotated[Caller, Security(_Authenticated("member"))]
"""May submit jobs."""
Admin = Annotated[Caller, Security(_Authenticated("admin"))]
"""Manages users and keys."""
