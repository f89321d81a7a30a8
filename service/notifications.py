"""Notifications between processes, through Redis: which jobs a transaction changed, which keys were revoked.

A notification carries ids only, and it may be lost: with Redis, or with a process that ends between its commit and its message.
Who listens is therefore told of gaps, and reads the database then.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Set

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from service.part_errors import Meaning, meaning_of

CHANNEL = "stillhouse.changes"
_RETRY_SECONDS = 1.0
_PING_SECONDS = 1.0
"""A Redis that answers no ping for so long is taken for gone."""
_RECONNECT_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Notifier:
    """Publishes the ids of what changed. What Redis does not take is published by a thread as soon as it does: who writes waits
    for a Redis that is away once, not at each write."""

    def __init__(self, redis_url: str) -> None:
        retry = Retry(NoBackoff(), 1)  # a connection that was kept from before Redis was started anew is broken
        self._redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=0.5, socket_timeout=0.5, retry=retry)
        self._lock = threading.Lock()
        self._unsent: set[str] = set()
        self._retrying: threading.Thread | None = None
        self._closing = threading.Event()

    def __call__(self, ids: Set[str]) -> None:
        with self._lock:
            if self._retrying is not None:
                self._unsent |= ids
                return
        if self._publish(ids):
            return
        with self._lock:
            self._unsent |= ids
            if self._retrying is None:
                self._retrying = threading.Thread(target=self._retry, name="notifier", daemon=True)
                self._retrying.start()

    def close(self) -> None:
        """Closes the connection."""
        self._closing.set()
        retrying = self._retrying  # which ends by itself meanwhile if Redis takes what there is
        if retrying is not None:
            retrying.join()
        self._redis.close()

    def _publish(self, ids: Set[str]) -> bool:
        try:
            self._redis.publish(CHANNEL, " ".join(sorted(ids)))
        except (RedisError, OSError) as error:
            logger.debug("Redis does not take the notifications of %d ids: %s", len(ids), error)
            return False
        return True

    def _retry(self) -> None:
        logger.warning("Redis takes no notifications at this moment; they are sent as soon as it does")
        while not self._closing.wait(_RETRY_SECONDS):
            with self._lock:
                ids, self._unsent = self._unsent, set()  # what changes once more from here on is sent once more
            is_sent = self._publish(ids)
            with self._lock:
                if not is_sent:
                    self._unsent |= ids
                elif not self._unsent:
                    self._retrying = None
                    return


class Listener:
    """One subscription a process.

    ``changed`` is called with the ids of each notification, and ``gap`` after each subscription: what was published before it,
    nobody heard.
    """

    def __init__(self, redis_url: str, *, changed: Callable[[Set[str]], None], gap: Callable[[], None]) -> None:
        self._url, self._changed, self._gap = redis_url, changed, gap
        self.is_listening = False
        """Whether there is a subscription, and Redis answers."""

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
            except Exception as error:  # noqa: BLE001 - whatever has ended the subscription, another one begins
                log = logger.exception if meaning_of(error) is Meaning.OURS else logger.warning
                log("Redis is not heard, the database is read instead: %s", error)
            self.is_listening = False
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
                self._changed(set(message["data"].decode(errors="replace").split()))
            elif message["type"] == "subscribe":
                self.is_listening = True
                self._gap()
