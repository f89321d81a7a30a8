"""HTTP with retries: a repeatable request is sent again after a broken connection or a temporary error.

A first request to an address without a service fails at once. A request to a service that has answered before is repeated for a
while, so that a client survives the service's restart.
"""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.client.errors import ApiError, Unreachable, as_error
from service.connection import Connection

_LONGEST_WAIT_SECONDS = 60.0


class Transport:
    """One connection pool to one service."""

    def __init__(self, connection: Connection, *, timeout_seconds: float, max_retries: int) -> None:
        self.url = connection.url
        self.timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._has_answered = False
        headers = {"User-Agent": "stillhouse"}
        if connection.api_key:
            headers["Authorization"] = f"Bearer {connection.api_key}"
        try:
            self._http = httpx.Client(
                base_url=connection.url,
                headers=headers,
                timeout=timeout_seconds,
                follow_redirects=True,  # artifacts in a bucket; the key is not sent to another host
                mounts={"all://127.0.0.1": None, "all://localhost": None},  # a proxy of the environment cannot reach these
            )
        except httpx.InvalidURL as error:
            raise Unreachable(f"{connection.url!r} is not an address: {error}") from error

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        form: Mapping[str, str] | None = None,
        file: Path | None = None,
        read_timeout_seconds: float | None = None,
    ) -> httpx.Response:
        """Returns a response with a status below 400 (304 included). ``file`` is streamed from disk as the form's part ``file``.

        ``content`` is a whole body.

        Raises:
            ApiError: the service returned a problem.
            Unreachable: no service answered.
        """
        for retry in Retry(self._max_retries if repeatable else 0):
            try:
                response = self._send(method, path, params, headers, json, content, form, file, read_timeout_seconds)
            except httpx.TransportError as error:
                retry.after_break(self.as_unreachable(error), may_wait=self._has_answered)
                continue
            self._has_answered = True
            if response.status_code < 400:
                return response
            retry.after_problem(as_error(response))
        raise AssertionError("Retry ends by raising")

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str], read_timeout_seconds: float
    ) -> Iterator[httpx.Response]:
        """Opens a response whose body is read in pieces. It is not repeated: only the caller knows where to resume.

        Raises:
            ApiError: the service returned a problem.
            httpx.TransportError: the connection broke, now or while reading.
        """
        timeout = httpx.Timeout(self.timeout_seconds, read=read_timeout_seconds)
        with self._http.stream("GET", path, params=_given(params), headers=dict(headers), timeout=timeout) as response:
            self._has_answered = True
            if response.status_code >= 400:
                response.read()
                raise as_error(response)
            yield response

    def retries(self) -> "Retry":
        """Retries for callers of :meth:`stream`, which resume after a broken connection."""
        return Retry(self._max_retries)

    def as_unreachable(self, error: httpx.TransportError) -> Unreachable:
        """Converts a broken connection to an error with a message for people."""
        if isinstance(error, httpx.UnsupportedProtocol):
            return Unreachable(f"{self.url!r} is not an address; write http://HOST:PORT or https://HOST")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(f"nobody answers at {self.url} ({error}). Is the service running? On this machine: stillhouse up")
        return Unreachable(f"the connection to {self.url} broke: {str(error) or type(error).__name__}")

    @property
    def has_answered(self) -> bool:
        """Whether the service has answered any request."""
        return self._has_answered

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        json: Any,
        content: bytes | None,
        form: Mapping[str, str] | None,
        file: Path | None,
        read_timeout_seconds: float | None,
    ) -> httpx.Response:
        timeout = httpx.Timeout(self.timeout_seconds, read=read_timeout_seconds or self.timeout_seconds)
        options: dict[str, Any] = {"params": _given(params), "headers": headers, "timeout": timeout}
        if file is None:
            return self._http.request(method, path, json=json, content=content, **options)
        with file.open("rb") as streamed:
            return self._http.request(method, path, data=form, files={"file": (file.name, streamed)}, **options)


class Retry:
    """An endless iterator of attempts. Between them it waits, with exponential backoff and jitter, or raises the last error."""

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._tries = 0

    def __iter__(self) -> Iterator["Retry"]:
        while True:
            yield self

    def reset(self) -> None:
        """Resets the backoff after progress: the next failure counts as the first."""
        self._tries = 0

    def after_break(self, error: Unreachable, *, may_wait: bool) -> None:
        """Waits after a broken connection; raises ``error`` if it may not wait or has no retries left."""
        if not may_wait:
            raise error
        self._wait(error, at_least_seconds=0.0)

    def after_problem(self, problem: ApiError) -> None:
        """Waits after a temporary problem, at least its Retry-After; raises ``problem`` if it is final or no retry is left."""
        asked_seconds = problem.retry_after_seconds or 0.0
        if not problem.temporary or asked_seconds > _LONGEST_WAIT_SECONDS:
            raise problem
        self._wait(problem, at_least_seconds=asked_seconds)

    def _wait(self, error: Exception, *, at_least_seconds: float) -> None:
        if self._tries >= self._max_retries:
            raise error
        backoff_seconds = min(0.25 * 2**self._tries, 8.0) * random.uniform(0.5, 1.0)  # noqa: S311
        self._tries += 1
        time.sleep(max(backoff_seconds, at_least_seconds))


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
