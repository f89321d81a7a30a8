"""Runs the application in uvicorn. On SIGTERM and Ctrl-C streams and long polls end first, so that they do not delay the exit."""

import gc
import resource
import socket

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.dependencies import Services

_GRACE_SECONDS = 20
"""How long uploads and downloads in progress may continue after the signal."""
_UNREAD_SECONDS = 120
"""After so long the kernel drops a client that takes nothing of what is sent to it: a stream's, which connects again, or a
download's."""
_MAX_FILES = 65_536
"""Each client that waits is an open file, and the usual limit of 1,024 is for older programs."""


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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what the imports made stays: no collection has to look at it again
        for each in (listening for server in self.servers for listening in server.sockets):
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections have it from the socket that they are accepted on
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_SECONDS * 1000)

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


def serve(host: str, port: int, *, listener: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT, on a socket of the parent's if ``listener`` is its number."""
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, most), hard))
    sockets = None if listener is None else [socket.socket(fileno=listener)]
    Server(create_app(), host=host, port=port).run(sockets=sockets)
