"""The Celery app and its wake-up messages.

A message says "something waits in pool P" and nothing else: the database row is the truth. A lost message costs one sweep, a
duplicate one empty claim. Acks are early and nothing is prefetched; with an unacked message in flight a Celery worker dies
when Redis drops its connection.
"""

import json
import logging
import time
from base64 import b64encode

from celery import Celery
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from service.ids import new_id

WAKE_TASK = "stillhouse.wake"
MAX_PENDING_WAKES = 64
"""Most wake-ups of one pool that are kept in Redis: each one that is taken after a commit sees what was committed, so more would
only cause empty claims."""
_SILENCE_SECONDS = 1.0
"""How long a Redis that does not answer is not tried again: it delays few callers."""

logger = logging.getLogger(__name__)


def make_celery(redis_url: str) -> Celery:
    """Creates the app, with one configuration for the API, which only sends, and for the worker."""
    app = Celery("stillhouse", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_publish_retry=False,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        broker_transport_options={
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "health_check_interval": 10,
            "priority_steps": [0],
            "ack_emulation": False,
        },
        enable_utc=True,
    )
    return app


def queue_name(pool: str) -> str:
    """The Redis list that the pool's workers take wake-ups from."""
    return f"stillhouse.pool.{pool}"


_PUSH = """
for _ = 1, math.min(ARGV[2], ARGV[3] - redis.call('LLEN', KEYS[1])) do
    redis.call('LPUSH', KEYS[1], ARGV[1])
end
"""


class Broker:
    """Sends wake-ups. Raises nothing if Redis is away: the sweep sends what was lost."""

    def __init__(self, redis_url: str) -> None:
        self.celery = make_celery(redis_url)
        # Without the client's ten retries: a wake-up is not worth a caller's half a minute.
        self._redis: Redis = Redis.from_url(
            redis_url, socket_connect_timeout=0.5, socket_timeout=0.5, retry=Retry(NoBackoff(), 0), decode_responses=True
        )
        self._push = self._redis.register_script(_PUSH)
        self._silent_until = float("-inf")

    def wake(self, pool: str, *, count: int = 1) -> bool:
        """Wakes ``count`` idle workers of a pool, in one trip to Redis; False if it is away, or did not answer a moment ago."""
        if time.monotonic() < self._silent_until:
            return False
        try:
            self._push(keys=[queue_name(pool)], args=[_message(pool), count, MAX_PENDING_WAKES])
        except (RedisError, OSError) as error:
            if isinstance(error, RedisTimeout):
                self._silent_until = time.monotonic() + _SILENCE_SECONDS
            logger.warning("no wake-up sent to pool %s, the sweep will: %s", pool, error)
            return False
        return True

    def wake_forgotten(self, due_by_pool: dict[str, int]) -> None:
        """Sends, for the sweep, the wake-ups that are due in pools that have none pending."""
        for pool, due in due_by_pool.items():
            try:
                idle = self._redis.llen(queue_name(pool)) == 0
            except RedisError as error:
                logger.warning("Redis does not answer: %s", error)
                return
            if idle:
                self.wake(pool, count=min(due, MAX_PENDING_WAKES))

    def remove_foreign(self, pool: str) -> None:
        """Removes what stands at the keys of a pool's queue and is no queue: no wake-up could be sent or taken any more."""
        for key, kind in ((queue_name(pool), "list"), (f"_kombu.binding.{queue_name(pool)}", "set")):
            found = self._redis.type(key)
            if found not in {kind, "none"}:
                logger.warning("removed %s from Redis: it was a %s, and is to be a %s", key, found, kind)
                self._redis.delete(key)

    def ping(self) -> None:
        """Raises RedisError when Redis does not answer."""
        self._redis.ping()

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()
        self.celery.close()


def _message(pool: str) -> str:
    """A wake-up as Celery would send it, which takes ten times as long, in every submission (Celery: Message Protocol,
    version 2; kombu's envelope for Redis)."""
    id_ = new_id("wake")
    body = json.dumps([[pool], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return json.dumps(
        {
            "body": b64encode(body.encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"lang": "py", "task": WAKE_TASK, "id": id_, "root_id": id_, "parent_id": None, "group": None},
            "properties": {
                "correlation_id": id_,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue_name(pool)},
                "delivery_tag": id_,
                "priority": 0,
                "body_encoding": "base64",
            },
        }
    )
