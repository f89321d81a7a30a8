"""A TCP proxy that cuts connections in the middle of an answer."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class CuttingProxy:
    """Forwards to ``target``; the first ``num_cuts`` connections asking for ``only`` are cut after ``after_bytes`` of answer."""

    def __init__(self, target: str, *, after_bytes: int, num_cuts: int, only: bytes) -> None:
        self._target = (urlsplit(target).hostname or "", urlsplit(target).port or 0)
        self._after_bytes = after_bytes
        self._only = only
        self.cuts_left = num_cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator["CuttingProxy"]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            watched = threading.Event()
            threading.Thread(target=self._forward_requests, args=(client, server, watched), daemon=True).start()
            num_bytes = 0
            with suppress(OSError):
                while answer := server.recv(4096):
                    if watched.is_set() and self.cuts_left > 0:
                        num_bytes += len(answer)
                        if num_bytes > self._after_bytes:
                            self.cuts_left -= 1
                            break
                    client.sendall(answer)
            for side in (client, server):
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def _forward_requests(self, client: socket.socket, server: socket.socket, watched: threading.Event) -> None:
        with suppress(OSError):
            while request := client.recv(65_536):
                if self._only in request.split(b"\r\n", 1)[0]:
                    watched.set()
                server.sendall(request)
