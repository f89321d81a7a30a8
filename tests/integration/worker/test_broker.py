"""What goes wrong with Redis, under a worker that has nothing to do and under one that trains: it goes on taking jobs."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.broker import queue_name
from service.embedded.servers import Valkey
from tests.integration.worker.conftest import Queue, WorkerProcess, until

Outage = Callable[[Valkey], AbstractContextManager[None]]
QUEUE = queue_name("default")
TINY = {"training": {"max_steps": 10, "batch_size": 32}}


@pytest.fixture
def client(valkey_server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_server.url, retry=Retry(NoBackoff(), 3)) as opened:
        yield opened


def until_heard(queue: Queue, client: redis.Redis) -> None:
    """Until the worker takes wake-ups out of Redis."""
    until(lambda: queue.broker.wake("default"))
    until(lambda: client.llen(QUEUE) == 0)


def a_replica_for_a_moment(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")
    client.replicaof("NO", "ONE")


def no_json(client: redis.Redis) -> None:
    client.lpush(QUEUE, b"no JSON", b"\xff\xfe", b"null", b'{"body": "x"}')


def another_type(client: redis.Redis) -> None:
    client.set(QUEUE, "no list")


def another_type_of_binding(client: redis.Redis) -> None:
    client.set(f"_kombu.binding.{QUEUE}", "no set")
    client.lpush(QUEUE, b"no JSON")  # so that the consumer meets it


def flushed(client: redis.Redis) -> None:
    client.flushall()


def disconnected(client: redis.Redis) -> None:
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)


def another_password_for_a_moment(client: redis.Redis) -> None:
    before = client.config_get("requirepass")["requirepass"]
    client.config_set("requirepass", "another")
    disconnected(client)
    client.config_set("requirepass", before or "")


FAULTS = [
    a_replica_for_a_moment,
    no_json,
    another_type_of_binding,
    flushed,
    disconnected,
    another_password_for_a_moment,
    another_type,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_idle_worker_listens_again_after_every_fault_of_redis(
    worker: WorkerProcess, queue: Queue, client: redis.Redis, fault: Callable[[redis.Redis], None]
) -> None:
    until_heard(queue, client)
    fault(client)
    until_heard(queue, client)
    assert worker.process.poll() is None


def test_a_worker_takes_jobs_while_it_trains_through_every_fault_of_redis(
    worker: WorkerProcess, queue: Queue, client: redis.Redis
) -> None:
    running = queue.submit(training={"max_steps": 1_000_000})
    queue.until_status(running, "running")
    for fault in FAULTS:
        fault(client)
    queue.until_status(queue.submit(**TINY), "succeeded")
    until_heard(queue, client)
    assert (queue.job(running).status, queue.job(running).attempt) == ("running", 1)
    assert worker.process.poll() is None


@contextmanager
def deaf(valkey: Valkey) -> Iterator[None]:
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


@contextmanager
def away(valkey: Valkey) -> Iterator[None]:
    valkey.stop()
    try:
        yield
    finally:
        valkey.start()


@pytest.mark.parametrize("outage", [deaf, away])
def test_an_idle_worker_finds_a_job_without_redis_and_listens_again_after_it(
    worker: WorkerProcess, queue: Queue, valkey_server: Valkey, client: redis.Redis, outage: Outage
) -> None:
    with outage(valkey_server):
        queue.until_status(queue.submit(**TINY), "succeeded")
    until_heard(queue, client)
    assert worker.process.poll() is None
