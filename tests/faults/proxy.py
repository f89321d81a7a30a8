"""A TCP proxy in front of a server, whose connections can be reset, held up and refused, and that can lead elsewhere."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_PIECE_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a close sends RST, not FIN."""


class Proxy:
    """Forwards a port of the loopback to ``target``, another one."""

    def __init__(self, target: int, *, port: int) -> None:
        self.target, self.port = target, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {target}", daemon=True)

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        self._thread.start()
        server = self._run(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        try:
            yield self
        finally:
            server.close()
            self._run(self._close_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def lead_to(self, target: int) -> None:
        """Leads new connections elsewhere, and ends the old ones."""
        self.target = target
        self.reset()

    def reset(self) -> None:
        """Resets every connection, in the middle of whatever it carries."""
        self._run(self._reset())

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Nothing goes through inside the block, and nobody is told: a network that drops packets."""
        self._loop.call_soon_threadsafe(self._flows.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flows.set)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every connection is reset, old ones and new ones."""
        self._refuses = True
        self.reset()
        try:
            yield
        finally:
            self._refuses = False

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        pair = {writer, server_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._forward(reader, server_writer), self._forward(server_reader, writer))
        finally:
            self._writers -= pair
            for end in pair:
                end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _reset(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def _close_all(self) -> None:
        await self._reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
