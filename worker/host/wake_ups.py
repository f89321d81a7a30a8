"""Listens for wake-ups: Celery's consumer on a thread of its own, which runs no job, started again whatever ended it.

A wake-up is a hint. While none can be heard, the worker's own look at the queue finds the same jobs, about a sweep later.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from celery.worker import state

from service.broker import WAKE_TASK, Broker, queue_name
from service.part_errors import log_failure

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


class WakeUps:
    """``with WakeUps(…):`` calls ``on_wake`` for each wake-up of the pool. ``on_wake`` returns at once."""

    def __init__(self, broker: Broker, pool: str, *, name: str, on_wake: Callable[[], None]) -> None:
        self._broker, self._pool, self._name = broker, pool, name
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wake-ups", daemon=True)

        @broker.celery.task(name=WAKE_TASK)  # type: ignore[untyped-decorator]
        def wake(pool: str) -> None:
            on_wake()

    def __enter__(self) -> Self:
        for library in ("celery", "kombu"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ending.set()
        state.should_stop = 0  # how Celery's own signal handlers end its loops; nobody waits for it, as Redis may be deaf

    def _listen(self) -> None:
        while not self._ending.is_set():
            try:
                self._consume()
            except Exception:
                logger.exception("the consumer of wake-ups failed")
            if not self._ending.wait(_PAUSE_SECONDS):
                logger.warning("the consumer of wake-ups has ended, and is started again")

    def _consume(self) -> None:
        """Runs a consumer to its end: that of this worker, or one by a message that is no wake-up, which is taken by then."""
        try:
            self._broker.remove_foreign(self._pool)
        except Exception as error:  # noqa: BLE001 - the consumer tries by itself
            log_failure(logger, "the worker looks for jobs at each sweep", error)
        self._broker.celery.WorkController(
            hostname=self._name,
            queues=[queue_name(self._pool)],
            pool="solo",
            concurrency=1,
            use_eventloop=False,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        ).start()
