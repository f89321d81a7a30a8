"""Notifications between processes, through Redis: which jobs a transaction changed, which keys were revoked.

A notification carries ids only, and it may be lost: with Redis, or with a process that ends between its commit and its message.
Who listens is therefore told when that may have happened, and reads the database then.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Set

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

CHANNEL = "stillhouse.changes"
_SILENCE_SECONDS = 2.0
"""How long a process that could not publish does not try again: a Redis that does not answer delays few writes."""
_PING_SECONDS = 1.0
"""A Redis that answers no ping for so long is taken for gone."""
_RECONNECT_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Notifier:
    """Publishes the ids of what changed; without Redis, readers see a change later, and nothing else happens."""

    def __init__(self, redis_url: str) -> None:
        retry = Retry(NoBackoff(), 1)  # a connection that was kept from before Redis was started anew is broken
        self._redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=0.5, socket_timeout=0.5, retry=retry)
        self._silent_until = float("-inf")

    def __call__(self, ids: Set[str]) -> None:
        if time.monotonic() < self._silent_until:
            return
        try:
            self._redis.publish(CHANNEL, " ".join(sorted(ids)))
        except (RedisError, OSError) as error:
            self._silent_until = time.monotonic() + _SILENCE_SECONDS
            logger.warning("Redis takes no notifications for the next %g s at least: %s", _SILENCE_SECONDS, error)

    def close(self) -> None:
        """Closes the connection."""
        self._redis.close()


class Listener:
    """One subscription a process.

    ``changed`` is called with the ids of each notification, and ``gap`` after each subscription: what was published before it,
    nobody heard.
    """

    def __init__(self, redis_url: str, *, changed: Callable[[Set[str]], None], gap: Callable[[], None]) -> None:
        self._url, self._changed, self._gap = redis_url, changed, gap
        self._listening_since = float("inf")

    @property
    def is_listening(self) -> bool:
        """Whether there is a subscription, and Redis answers."""
        return self._listening_since < float("inf")

    @property
    def misses_nothing(self) -> bool:
        """Whether Redis is heard, and has been for so long that every process publishes again."""
        return time.monotonic() - self._listening_since > 2 * _SILENCE_SECONDS

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens until the block ends."""
        task = asyncio.create_task(self._listen_forever())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen_forever(self) -> None:
        while True:
            try:
                retry = AsyncRetry(NoBackoff(), 0)
                async with (
                    AsyncRedis.from_url(self._url, socket_connect_timeout=2, socket_timeout=2, retry=retry) as redis,
                    redis.pubsub() as pubsub,
                ):
                    await pubsub.subscribe(CHANNEL)
                    await self._listen(pubsub)
            except (RedisError, OSError) as error:
                logger.warning("Redis is not heard, the database is read instead: %s", error)
            self._listening_since = float("inf")
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self, pubsub: PubSub) -> None:
        has_pinged = False
        while True:
            message = await pubsub.get_message(timeout=_PING_SECONDS)
            if message is None:
                if has_pinged:
                    raise TimeoutError("it answers no ping")
                await pubsub.ping()
                has_pinged = True
                continue
            has_pinged = False
            if message["type"] == "message":
                self._changed(set(message["data"].decode().split()))
            elif message["type"] == "subscribe":
                self._listening_since = time.monotonic()
                self._gap()
