"""Calls of the store for requests: a store that hangs holds up what needs it, for a while, and nothing else.

A call that hangs keeps its thread until the store is back. So it is none of the threads that all routes share; so many calls are
under way and no more; and nobody waits for one beyond the limit, whether for its turn or for its end.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TypeVar

from service.errors import Unavailable
from service.own_thread import run_in_own_thread

_RETRY_AFTER_SECONDS = 10
T = TypeVar("T")


class StoreCalls:
    """So many calls at once, each waited for so long unless told otherwise."""

    def __init__(self, *, limit_seconds: float, at_once: int = 32) -> None:
        self._limit_seconds = limit_seconds
        self._free = asyncio.Semaphore(at_once)

    async def run(self, work: Callable[[], T], *, limit_seconds: float | None = None) -> T:
        """Runs ``work`` in a thread. Raises Unavailable after the limit; what has begun goes on by itself."""
        try:
            async with asyncio.timeout(limit_seconds or self._limit_seconds):
                await self._free.acquire()
                return await asyncio.shield(self._begin(work))
        except TimeoutError as error:
            detail = "the store does not answer at this moment; try again"
            raise Unavailable(detail, retry_after_seconds=_RETRY_AFTER_SECONDS) from error

    def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        try:
            call = asyncio.wrap_future(run_in_own_thread(work, name="store"))
        except BaseException:  # the machine has no thread left: the turn is not used
            self._free.release()
            raise
        call.add_done_callback(lambda _: self._free.release())
        return call

    async def iterate(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yields what a generator reads from the store, each chunk read by a call of its own."""
        while (chunk := await self.run(partial(next, chunks, None))) is not None:
            yield chunk
