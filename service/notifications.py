"""News of changed jobs between processes: who waits for a job is woken by Redis, never by polling the database.

News carries ids only. It may be lost or late, so each waiter also looks by itself after ``RECHECK_SECONDS``.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Set

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

CHANNEL = "stillhouse.jobs"
RECHECK_SECONDS = 2.0
_RECONNECT_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Announcer:
    """Publishes the ids of changed jobs; a Redis that is away costs the readers some promptness, and nothing else."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=1, socket_timeout=2)

    def __call__(self, job_ids: Set[str]) -> None:
        try:
            for job_id in job_ids:
                self._redis.publish(CHANNEL, job_id)
        except (RedisError, OSError) as error:
            logger.debug("news of %d jobs not sent: %s", len(job_ids), error)

    def close(self) -> None:
        """Gives the connection back."""
        self._redis.close()


class NewsHub:
    """One Redis subscription of this process, shared by every request that waits for a job."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closing = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["NewsHub"]:
        """Listens for as long as the block lasts."""
        listener = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            self.end_waits()
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    def end_waits(self) -> None:
        """The process is going down: wakes everybody who waits, so that streams end and no long poll holds it up."""
        self._closing.set()
        self._wake_all()

    @property
    def closing(self) -> bool:
        """Whether the process is going down: who streams should end."""
        return self._closing.is_set()

    @contextlib.contextmanager
    def subscribed(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set by each news of the job. Subscribe first, then read the database, then wait."""
        event = asyncio.Event()
        self._waiters[job_id].add(event)
        try:
            yield event
        finally:
            self._waiters[job_id].discard(event)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    async def _listen(self) -> None:
        while True:
            try:
                async with AsyncRedis.from_url(self._url, socket_connect_timeout=2) as redis, redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            for event in self._waiters.get(message["data"].decode(), ()):
                                event.set()
            except (RedisError, OSError) as error:
                logger.warning("news are away, waiting requests look by themselves: %s", error)
                self._wake_all()
                await asyncio.sleep(_RECONNECT_SECONDS)

    def _wake_all(self) -> None:
        for events in self._waiters.values():
            for event in events:
                event.set()


async def wait_for_news(event: asyncio.Event, *, timeout_seconds: float) -> None:
    """Until there is news or it is time to look again."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), min(timeout_seconds, RECHECK_SECONDS))
    event.clear()
