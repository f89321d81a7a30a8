"""Dependencies of routes: the services of the process, and the caller. Each role is a type: ``Viewer``, ``Member``, ``Admin``."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.readiness import PartChecks
from service.api.reads import Reads
from service.api.store_calls import StoreCalls
from service.api.waiting import Watches
from service.broker import Broker
from service.database import Database
from service.scheduling.queue_status_cache import QueueStatusCache
from service.security import Caller
from service.settings import Settings
from service.store import Store

_bearer = HTTPBearer(
    scheme_name="key",
    description="An API key: `Authorization: Bearer sh_…`. An admin makes one with POST /v1/keys.",
    auto_error=False,
)


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


async def authorization_of(
    request: Request, _scheme: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> str | None:
    """The ``Authorization`` header, for what reads the caller together with something else."""
    return request.headers.get("authorization")


Authorization = Annotated[str | None, Depends(authorization_of)]


async def viewer(services: ServicesOf, authorization: Authorization) -> Caller:
    """Authenticates the caller; any valid key will do."""
    return await services.reads.caller(authorization)


Viewer = Annotated[Caller, Depends(viewer)]


async def member(caller: Viewer) -> Caller:
    """Requires the role ``member``, which may submit jobs."""
    caller.require("member")
    return caller


async def admin(caller: Viewer) -> Caller:
    """Requires the role ``admin``, which manages users and keys."""
    caller.require("admin")
    return caller


Member = Annotated[Caller, Depends(member)]
Admin = Annotated[Caller, Depends(admin)]
