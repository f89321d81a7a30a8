"""Notifications of changed jobs between processes: Redis wakes the requests that wait for a job; they do not poll the database.

A notification carries ids only. It may be lost or late, so each waiter also reads the database after ``RECHECK_SECONDS``.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Set

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

CHANNEL = "stillhouse.jobs"
RECHECK_SECONDS = 2.0
_RECONNECT_SECONDS = 1.0

logger = logging.getLogger(__name__)


class JobNotifier:
    """Publishes the ids of changed jobs; without Redis, readers see a change later, and nothing else happens."""

    def __init__(self, redis_url: str) -> None:
        # Without the client's ten retries: what was committed does not wait half a minute for a deaf Redis.
        self._redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0))

    def __call__(self, job_ids: Set[str]) -> None:
        try:
            for job_id in job_ids:
                self._redis.publish(CHANNEL, job_id)
        except (RedisError, OSError) as error:
            logger.debug("notifications of %d jobs not sent: %s", len(job_ids), error)

    def close(self) -> None:
        """Closes the connection."""
        self._redis.close()


class NotificationHub:
    """One Redis subscription per process, shared by every request that waits for a job."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closing = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["NotificationHub"]:
        """Listens until the block ends."""
        listener = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            self.end_waits()
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    def end_waits(self) -> None:
        """Wakes every waiter when the process shuts down, so that streams end and no long poll delays it."""
        self._closing.set()
        self._wake_all()

    @property
    def closing(self) -> bool:
        """Whether the process is shutting down: streams should end."""
        return self._closing.is_set()

    @contextlib.contextmanager
    def subscribed(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that each notification of the job sets. Subscribe first, then read the database, then wait."""
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
                logger.warning("Redis is not reachable, waiting requests read the database by themselves: %s", error)
                self._wake_all()
                await asyncio.sleep(_RECONNECT_SECONDS)

    def _wake_all(self) -> None:
        for events in self._waiters.values():
            for event in events:
                event.set()


async def wait_for_notification(event: asyncio.Event, *, timeout_seconds: float) -> None:
    """Waits for a notification, at most ``timeout_seconds`` or ``RECHECK_SECONDS``; clears the event."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), min(timeout_seconds, RECHECK_SECONDS))
    event.clear()
