"""The worker process: a Celery app on threads that claims and supervises, and never imports torch.

A wake-up makes one thread claim jobs until nothing fits any more. SIGTERM drains: every trainer writes a checkpoint, its job
goes back to the queue, and the process ends.
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
from sqlalchemy import func, update
from sqlalchemy.exc import SQLAlchemyError

from service import scheduling
from service.broker import WAKE_TASK, Broker, queue_name
from service.database import Database
from service.ids import new_id
from service.news import Announcer
from service.scheduling import Claim, Device
from service.settings import Settings, settings
from service.store import Store
from service.sweeper import Sweeper
from service.tables import Worker
from worker.devices import DeviceLedger, parse_devices
from worker.scratch import scratch_folder
from worker.supervisor import Supervisor
from worker.trainer_process import warm_up

logger = logging.getLogger(__name__)


class Host:
    """This worker: its devices, its row, its jobs."""

    def __init__(self, config: Settings, *, worker_id: str, pool: str, devices: list[Device], scratch: Path) -> None:
        self.id = worker_id
        self.pool = pool
        self.draining = threading.Event()
        self._config = config
        self.ledger = DeviceLedger(devices)
        self.database = Database(config.database_url, announce=Announcer(config.redis_url), pool_size=2 * len(devices) + 4)
        self.broker = Broker(config.redis_url)
        self.store = Store(config.store)
        self._scratch = scratch
        self._stopped = threading.Event()

    def register(self) -> None:
        """Writes the worker's row."""
        with self.database.transaction() as session:
            session.add(
                Worker(
                    id=self.id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    pool=self.pool,
                    slots=len(self.ledger.devices),
                    devices=[
                        {"name": device.name, "kind": device.name.partition(":")[0], "memory_gib": device.memory_gib}
                        for device in self.ledger.devices
                    ],
                )
            )
        threading.Thread(target=self._beat, name="worker-heartbeat", daemon=True).start()

    def deregister(self) -> None:
        """Marks the worker as gone."""
        self._stopped.set()
        with self.database.transaction() as session:
            session.execute(update(Worker).where(Worker.id == self.id).values(stopped_at=func.now(), draining=True))

    def work(self) -> None:
        """Claims and runs jobs, one after the other, until nothing fits what is free."""
        while not self.draining.is_set():
            taken = self._claim()
            if taken is None:
                return
            claim, device = taken
            try:
                Supervisor(
                    claim,
                    database=self.database,
                    store=self.store,
                    settings=self._config,
                    scratch=self._scratch,
                    num_threads=self.ledger.threads_per_job,
                    draining=self.draining,
                ).run()
            finally:
                self.ledger.give_back(device)

    def _claim(self) -> tuple[Claim, Device] | None:
        with self.ledger.lock:
            offer = self.ledger.offer(worker_id=self.id, pool=self.pool)
            try:
                with self.database.transaction() as session:
                    claim = scheduling.claim(session, offer, lease_seconds=self._config.lease_seconds)
            except SQLAlchemyError as error:
                logger.warning("no claim, the database does not answer: %s", error)
                return None
            return None if claim is None else (claim, self.ledger.take(claim.devices[0]))

    def _beat(self) -> None:
        while not self._stopped.wait(self._config.heartbeat_seconds):
            try:
                with self.database.transaction() as session:
                    session.execute(
                        update(Worker)
                        .where(Worker.id == self.id)
                        .values(heartbeat_at=func.now(), draining=self.draining.is_set())
                    )
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
        run(host, sweep_seconds=config.sweep_seconds)


def run(host: Host, *, sweep_seconds: float) -> None:
    """Registers the worker and serves wake-ups until it is told to end."""
    app = host.broker.celery

    @app.task(name=WAKE_TASK)  # type: ignore[untyped-decorator]
    def wake(pool: str) -> None:
        host.work()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def drain(**_: object) -> None:
        host.draining.set()

    host.register()
    logger.info("worker %s takes jobs of pool %s on %d devices", host.id, host.pool, len(host.ledger.devices))
    try:
        with Sweeper(host.database, host.broker, host.store, interval_seconds=sweep_seconds):
            app.worker_main(
                [
                    "worker",
                    "--pool=threads",
                    f"--concurrency={len(host.ledger.devices)}",
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
