"""Turns to call the store: each comes back."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.api.store_calls import StoreCalls


@contextmanager
def no_room_for_a_thread() -> Iterator[None]:
    usual = threading.stack_size(2**46)
    yield
    threading.stack_size(usual)


def test_a_turn_whose_thread_could_not_be_started_is_given_back() -> None:
    async def scenario() -> None:
        calls = StoreCalls(limit_seconds=10, at_once=1)
        with no_room_for_a_thread(), pytest.raises(RuntimeError, match="new thread"):
            await calls.run(lambda: "none")
        assert await calls.run(lambda: "done") == "done"

    asyncio.run(scenario())
