"""The worker process: a Celery app on threads that claims and supervises, and never imports torch.

At a wake-up one thread claims jobs until none fits. SIGTERM drains: every trainer writes a checkpoint, its job goes back to the
queue, and the process ends.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path

from celery.signals import worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from service import scheduling, workers
from service.broker import WAKE_TASK, Broker, queue_name
from service.database import Database
from service.ids import new_id
from service.notifications import JobNotifier
from service.queue_policy import QueuePolicy
from service.scheduling import Claim, Device, Offer
from service.settings import Settings, settings
from service.store import Store
from service.sweeper import Sweeper, preempt
from service.workers import Drain
from worker.host.devices import DeviceLedger, host_memory_gib, parse_devices
from worker.host.executor import LocalExecutor
from worker.host.preflight import Checker
from worker.host.scratch import scratch_folder
from worker.host.supervisor import Supervisor
from worker.host.trainer_process import warm_up

logger = logging.getLogger(__name__)


class Host:
    """One worker: its devices, its row in the database, its jobs."""

    def __init__(self, config: Settings, *, worker_id: str, pool: str, devices: list[Device], scratch: Path) -> None:
        self.id = worker_id
        self.pool = pool
        self.ending = threading.Event()
        """Set when the process receives a signal to end."""
        self._drain = Drain(draining=False, finish=False)
        self._config = config
        self.ledger = DeviceLedger(devices)
        self.database = Database(
            config.database_url,
            notify=JobNotifier(config.redis_url),
            pool_size=2 * len(devices) + 4,
            answer_seconds=config.patient_database_seconds,
            queue_policy=QueuePolicy.of(config),
        )
        self.broker = Broker(config.redis_url)
        self.store = Store(config.store)
        self._scratch = scratch
        self._executor = LocalExecutor(socket.gethostname())
        self._checker = Checker(
            worker_id,
            pool,
            executor=self._executor,
            database=self.database,
            store=self.store,
            settings=config,
            scratch=scratch,
            leaving=lambda: self.draining,
            passed=self._wake,
        )
        self._stopped = threading.Event()

    def register(self) -> None:
        """Writes the worker's row."""
        shared = host_memory_gib()
        devices = []
        for device in self.ledger.devices:
            kind = device.name.partition(":")[0]
            memory = shared if kind == "cpu" else device.memory_gib
            devices.append({"name": device.name, "kind": kind, "memory_gib": memory})
        with self.database.transaction() as session:
            workers.register(session, self.id, host=self._executor.host, pid=os.getpid(), pool=self.pool, devices=devices)
        threading.Thread(target=self._beat, name="worker-heartbeat", daemon=True).start()

    def deregister(self) -> None:
        """Marks the worker as gone."""
        self._stopped.set()
        with self.database.transaction() as session:
            workers.deregister(session, self.id)

    def work(self) -> None:
        """Runs pending checks; then claims and runs jobs, one after the other, until none fits."""
        self._checker.work()
        while not self.draining and (claim := self._claim()) is not None:
            try:
                Supervisor(
                    claim,
                    executor=self._executor,
                    host=self._executor.host,
                    database=self.database,
                    store=self.store,
                    settings=self._config,
                    scratch=self._scratch,
                    num_threads=self.ledger.threads_per_device * len(claim.devices),
                    leaving=lambda: self.ending.is_set() or (self._drain.draining and not self._drain.finish),
                ).run()
            finally:
                self.ledger.give_back(claim.devices)

    def _wake(self, pool: str) -> None:
        """Wakes this worker's other threads and other workers for a job that has passed its check."""
        preempt(self.database, pool, lease_seconds=self._config.lease_seconds)
        self.broker.wake(pool)

    @property
    def draining(self) -> bool:
        """Whether it takes no more jobs."""
        return self.ending.is_set() or self._drain.draining

    def _claim(self) -> Claim | None:
        with self.ledger.lock:
            offer = Offer(self.id, self.pool, self.ledger.free())
            try:
                with self.database.transaction() as session:
                    claim = scheduling.claim(session, offer, lease_seconds=self._config.lease_seconds)
            except SQLAlchemyError as error:
                logger.warning("no claim, the database does not answer: %s", error)
                return None
            if claim is not None:
                self.ledger.take(claim.devices)
            return claim

    def _beat(self) -> None:
        while not self._stopped.wait(self._config.heartbeat_seconds):
            try:
                with self.database.transaction() as session:
                    self._drain = workers.beat(session, self.id, ending=self.ending.is_set())
            except SQLAlchemyError as error:
                logger.warning("no worker heartbeat, the database does not answer: %s", error)


def main(arguments: list[str] | None = None) -> None:
    """``python -m worker``: runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="stillhouse worker", description="Runs jobs of one pool on this host's devices.")
    parser.add_argument("--pool", default="default", help="the pool whose jobs it takes")
    parser.add_argument("--devices", default="auto", help="auto, or a list such as cpu:2,cuda:0,cuda:1")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = settings()
    missing = [name for name, value in _needed(config).items() if not value]
    if missing:
        sys.exit(f"stillhouse worker: set {', '.join(missing)}")
    try:
        devices = parse_devices(options.devices, visible=config.cuda_visible_devices)
    except ValueError as error:
        sys.exit(f"stillhouse worker: {error}")
    # Celery takes the signal over; until then nothing runs that would have to drain. Process 1 would not even hear it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    worker_id = new_id("worker")
    with scratch_folder(config.scratch or Path(tempfile.gettempdir()), worker_id) as scratch:
        logger.info("loading torch and transformers")
        warm_up()
        host = Host(config, worker_id=worker_id, pool=options.pool, devices=devices, scratch=scratch)
        run(host, sweep_seconds=config.sweep_seconds, lease_seconds=config.lease_seconds)


def run(host: Host, *, sweep_seconds: float, lease_seconds: float) -> None:
    """Registers the worker and serves wake-ups until it is told to end."""
    app = host.broker.celery

    @app.task(name=WAKE_TASK)  # type: ignore[untyped-decorator]
    def wake(pool: str) -> None:
        host.work()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def drain(**_: object) -> None:
        host.ending.set()

    host.register()
    logger.info("worker %s takes jobs of pool %s on %d devices", host.id, host.pool, len(host.ledger.devices))
    try:
        with Sweeper(host.database, host.broker, host.store, interval_seconds=sweep_seconds, lease_seconds=lease_seconds):
            app.worker_main(
                [
                    "worker",
                    "--pool=threads",
                    f"--concurrency={len(host.ledger.devices) + 1}",
                    f"--queues={queue_name(host.pool)}",
                    f"--hostname={host.id}@%h",
                    "--without-gossip",
                    "--without-mingle",
                    "--without-heartbeat",
                    "--loglevel=WARNING",
                ]
            )
    finally:
        host.deregister()


def _needed(config: Settings) -> dict[str, str]:
    return {"DATABASE_URL": config.database_url, "REDIS_URL": config.redis_url, "STILLHOUSE_STORE": config.store}
