"""Serving the application by uvicorn. On SIGTERM and Ctrl-C the streams end first, so that nobody waits for them."""

import socket

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.dependencies import Services

_GRACE_SECONDS = 20
"""What a running upload or download may still take."""


class Server(uvicorn.Server):
    """Ends event streams and long polls before it waits for connections."""

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(app, host=host, port=port, ws="none", server_header=False, timeout_graceful_shutdown=_GRACE_SECONDS)
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.hub.end_waits()
        await super().shutdown(sockets)


def serve(host: str, port: int) -> None:
    """Serves until a signal ends it."""
    Server(create_app(), host=host, port=port).run()
