"""Runs the application in uvicorn. On SIGTERM and Ctrl-C streams and long polls end first, so that they do not delay the exit."""

import socket

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.dependencies import Services

_GRACE_SECONDS = 20
"""How long uploads and downloads in progress may continue after the signal."""


class Server(uvicorn.Server):
    """Ends event streams and long polls before it waits for connections."""

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        self._app = app
        super().__init__(configuration(app, host=host, port=port))

    @property
    def services(self) -> Services:
        """Those of the application, which are there while it is served."""
        services: Services = self._app.state.services
        return services

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.services.watches.end_all()
        await super().shutdown(sockets)


def configuration(app: FastAPI, *, host: str, port: int) -> uvicorn.Config:
    """The settings of uvicorn."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def serve(host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    Server(create_app(), host=host, port=port).run()
