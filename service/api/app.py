"""The HTTP application. Importing this module starts nothing; connections are opened in the application's lifespan.

RequestIds → PlainAddresses → SessionCookies → RateLimit → BodyLimit → HeadAsGet → routes → problems
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from functools import partial

from fastapi import FastAPI
from starlette.routing import Route

from service import settings as process
from service.api import docs_page, openapi, problems
from service.api.dependencies import Services
from service.api.middleware import BodyLimit, HeadAsGet, PlainAddresses, RateLimit, RequestIds
from service.api.readiness import PartChecks
from service.api.reads import Reads
from service.api.responses.jobs import job_answer
from service.api.routes import (
    catalogue,
    datasets,
    health,
    jobs,
    model_uploads,
    models,
    pages,
    previews,
    queue,
    records,
    session,
    team,
)
from service.api.sessions import SessionCipher, SessionCookies
from service.api.store_calls import StoreCalls
from service.api.waiting import Watches
from service.broker import Broker
from service.database import Database, checked_url
from service.errors import Unavailable
from service.notifications import Notifier
from service.queue_policy import QueuePolicy
from service.scheduling.queue_status_cache import QueueStatusCache
from service.secrets import checked_key
from service.settings import Settings
from service.store_identity import look_for, store_of
from service.sweeper import Sweeper

_ROUTERS = (health, jobs, previews, records, datasets, models, model_uploads, catalogue, queue, team, session, pages)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Creates the application, by default with the settings of the process.

    Raises:
        ValueError: a required setting is missing.
    """
    chosen = settings or process.settings()
    _require_addresses(chosen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with (
            closing(Notifier(chosen.redis_url)) as notifier,
            closing(Broker(chosen.redis_url)) as broker,
            closing(_database(chosen, notifier, answer_seconds=chosen.database_seconds)) as database,
            closing(_database(chosen, notifier, answer_seconds=chosen.patient_database_seconds, pool_size=1)) as patient,
        ):
            store = store_of(database, chosen.store)
            store_calls = StoreCalls(limit_seconds=chosen.store_seconds)
            with suppress(Unavailable):  # a mount that hangs does not keep the API from starting
                await store_calls.run(partial(look_for, store))
            cache = QueueStatusCache(lease_seconds=chosen.lease_seconds, max_age_seconds=chosen.queue_picture_seconds)
            sweeper = Sweeper(patient, broker, store, interval_seconds=chosen.sweep_seconds, lease_seconds=chosen.lease_seconds)
            with closing(PartChecks(chosen, broker, store)) as part_checks, sweeper:
                async with (
                    Watches(database, chosen.redis_url, partial(job_answer, cache)).running() as watches,
                    aclosing(Reads(database, cache)) as reads,
                ):
                    app.state.services = Services(
                        settings=chosen,
                        database=database,
                        broker=broker,
                        store=store,
                        store_calls=store_calls,
                        ingests=StoreCalls(limit_seconds=chosen.store_seconds),
                        watches=watches,
                        queue_status_cache=cache,
                        reads=reads,
                        part_checks=part_checks,
                    )
                    yield

    app = FastAPI(
        title="Stillhouse",
        routes=[route for module in _ROUTERS for route in module.router.routes],  # not by routers, each of which matches twice
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # would name the scheme and host of this side of a proxy
        separate_input_output_schemas=False,
    )
    docs_page.install(app)
    routers = (app.router, *(module.router for module in _ROUTERS))
    problems.install(app, [route for router in routers for route in router.routes if isinstance(route, Route)])
    openapi.install(app)
    # The middleware that is added last is the outermost.
    app.add_middleware(HeadAsGet)
    app.add_middleware(
        BodyLimit,
        max_bytes=chosen.max_request_bytes,
        max_upload_bytes=chosen.max_upload_bytes,
    )
    app.add_middleware(RateLimit, requests_per_second=chosen.requests_per_second)
    app.add_middleware(SessionCookies, cipher=SessionCipher(chosen))
    app.add_middleware(PlainAddresses)
    app.add_middleware(RequestIds)
    return app


def _database(settings: Settings, notify: Notifier, *, answer_seconds: float, pool_size: int = 10) -> Database:
    queue_policy = QueuePolicy.of(settings)
    url = settings.database_url
    return Database(url, notify=notify, pool_size=pool_size, answer_seconds=answer_seconds, queue_policy=queue_policy)


def _require_addresses(settings: Settings) -> None:
    needed = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "STILLHOUSE_STORE": settings.store}
    missing = [name for name, value in needed.items() if not value]
    checked_key(settings.secret_key.get_secret_value())
    for address in filter(None, (settings.database_url, settings.database_direct_url)):
        checked_url(address)
    if missing:
        raise ValueError(f"set {', '.join(missing)}: the API needs a database, Redis and a store (file:///path or s3://bucket)")
