"""The worker process: threads that claim and supervise, woken by messages or by a look at the queue. It never imports torch.

Once woken, a thread claims jobs until none fits. SIGTERM drains: every trainer writes a checkpoint, its job goes back to the
queue, and the process ends. Without the database or Redis the worker waits for them, and its jobs run on.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service import scheduling, workers
from service.broker import Broker
from service.database import Database
from service.ids import new_id
from service.notifications import Notifier
from service.part_errors import is_of_other_schema, is_passing, log_failure
from service.queue_policy import QueuePolicy
from service.scheduling import Claim, Device, Offer
from service.settings import Settings, settings
from service.store_identity import look_for, store_of
from service.sweeper import Sweeper, preempt
from service.workers import Drain
from worker.host.devices import DeviceLedger, host_memory_gib, parse_devices
from worker.host.executor import LocalExecutor
from worker.host.fork_server import warm_up
from worker.host.miniature import MiniatureRunner
from worker.host.preflight import Checker
from worker.host.scratch import scratch_folder
from worker.host.supervisor import Supervisor
from worker.host.wake_ups import WakeUps

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_NUM_SPARES = 2
"""Trainer processes that are forked ahead: one for a check, one for the attempt that follows."""
_MOST_PAUSE_SECONDS = 300.0
"""Between the attempts of a host that loses one after the other."""
_END_SIGNALS = {signal.SIGTERM, signal.SIGINT}


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
            notify=Notifier(config.redis_url),
            pool_size=2 * len(devices) + 4,
            answer_seconds=config.patient_database_seconds,
            queue_policy=QueuePolicy.of(config),
        )
        self.broker = Broker(config.redis_url)
        self.store = store_of(self.database, config.store)
        self._scratch = scratch
        self._executor = LocalExecutor(socket.gethostname(), num_spares=_NUM_SPARES, scratch=scratch)
        self._executor.prepare()
        runner = MiniatureRunner(
            executor=self._executor,
            database=self.database,
            store=self.store,
            settings=config,
            scratch=scratch,
            leaving=lambda: self.draining,
        )
        self._checker = Checker(
            worker_id,
            pool,
            runner=runner,
            database=self.database,
            settings=config,
            leaving=lambda: self.draining,
            passed=self._wake_all,
        )
        self._stopped = threading.Event()
        self._losses = 0
        num_threads = len(devices) + 1  # one for checks
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="job")
        self._spare_wakes = threading.BoundedSemaphore(num_threads)

    def register(self) -> None:
        """Writes the worker's row; waits for the database."""
        shared = host_memory_gib()
        devices = []
        for device in self.ledger.devices:
            kind = device.name.partition(":")[0]
            memory = shared if kind == "cpu" else device.memory_gib
            devices.append({"name": device.name, "kind": kind, "memory_gib": memory})
        while not self._register(devices):
            time.sleep(_RETRY_SECONDS)

    def start_heartbeat(self) -> None:
        """Renews the worker's row from now on."""
        threading.Thread(target=self._beat, name="worker-heartbeat", daemon=True).start()

    def drain(self) -> None:
        """Ends what runs here, and returns once nothing does."""
        self.ending.set()
        self._threads.shutdown()

    def close(self) -> None:
        """Ends the spare processes, which have files in the scratch folder."""
        self._executor.close()

    def deregister(self) -> None:
        """Marks the worker as gone; if the database is away, its silence will."""
        self._stopped.set()
        try:
            self.database.run(lambda session: workers.deregister(session, self.id))
        except Exception as error:  # noqa: BLE001 - it ends
            log_failure(logger, f"worker {self.id} ends, which the database was not told", error)

    def wake(self) -> None:
        """Lets a thread look for work. As many calls wait for a free thread as there are threads; more would find nothing."""
        if not self.draining and self._spare_wakes.acquire(blocking=False):
            self._threads.submit(self._work_once)

    def look_for_work(self) -> None:
        """Wakes as many threads as the pool has use for, without a message: Redis may be away."""
        due = self.database.run(lambda session: scheduling.wakes_due(session, lease_seconds=self._config.lease_seconds))
        for _ in range(due.get(self.pool, 0)):
            self.wake()

    def work(self) -> None:
        """Runs pending previews and checks; then claims and runs jobs, one after the other, until none fits."""
        self._checker.work()
        while not self.draining and (claim := self._claim()) is not None:
            try:
                supervisor = Supervisor(
                    claim,
                    executor=self._executor,
                    host=self._executor.host,
                    database=self.database,
                    store=self.store,
                    settings=self._config,
                    scratch=self._scratch,
                    num_threads=self.ledger.threads_per_device * len(claim.devices),
                    leaving=lambda: self.ending.is_set() or (self._drain.draining and not self._drain.finish),
                )
                self._pause_if_losing(supervisor.run())
            finally:
                self.ledger.give_back(claim.devices)

    def _work_once(self) -> None:
        self._spare_wakes.release()  # a wake-up from here on may be for what the look below does not see
        try:
            self.work()
        except Exception:
            logger.exception("a thread of worker %s failed", self.id)

    def _pause_if_losing(self, lost: bool) -> None:
        """Keeps the devices back for a while after several lost attempts in a row: on a host with a full disk a job would else
        lose in seconds all the attempts that it may lose, and others meanwhile would not get it."""
        self._losses = self._losses + 1 if lost else 0
        if self._losses > 1:
            pause = min(2.0 ** (self._losses - 1), _MOST_PAUSE_SECONDS)
            logger.warning("%d attempts in a row were lost here; what ran the last one pauses for %g s", self._losses, pause)
            self.ending.wait(pause)

    def _wake_all(self, pool: str) -> None:
        """Wakes this worker's other threads and other workers for a job that has passed its check."""
        self.wake()  # first: mostly the job starts here
        preempt(self.database, pool, lease_seconds=self._config.lease_seconds)
        self.broker.wake(pool)

    def _register(self, devices: list[dict[str, Any]]) -> bool:
        host = self._executor.host

        def register(session: Session) -> None:
            workers.register(session, self.id, host=host, pid=os.getpid(), pool=self.pool, devices=devices)

        try:
            self.database.run(register)
        except Exception as error:
            if not is_passing(error) and not is_of_other_schema(error):
                raise
            log_failure(logger, f"worker {self.id} waits for the database", error)
            return False
        return True

    @property
    def draining(self) -> bool:
        """Whether it takes no more jobs."""
        return self.ending.is_set() or self._drain.draining

    def _claim(self) -> Claim | None:
        with self.ledger.lock:
            offer = Offer(self.id, self.pool, self.ledger.free())
            try:
                claim = self.database.run(
                    lambda session: scheduling.claim(session, offer, lease_seconds=self._config.lease_seconds)
                )
            except Exception as error:  # noqa: BLE001 - the next wake-up tries again
                log_failure(logger, "no claim", error)
                return None
            if claim is not None:
                self.ledger.take(claim.devices)
            return claim

    def _beat(self) -> None:
        while not self._stopped.wait(self._config.heartbeat_seconds):
            try:
                self._drain = self.database.run(lambda session: workers.beat(session, self.id, ending=self.ending.is_set()))
            except Exception as error:  # noqa: BLE001 - the next one follows
                log_failure(logger, "no worker heartbeat", error)


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
    # Until something runs that would have to drain. Process 1 would not even hear the signal otherwise.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    worker_id = new_id("worker")
    with scratch_folder(config.scratch or Path(tempfile.gettempdir()), worker_id) as scratch:
        logger.info("loading torch and transformers")
        warm_up()
        with closing(Host(config, worker_id=worker_id, pool=options.pool, devices=devices, scratch=scratch)) as host:
            run(host, sweep_seconds=config.sweep_seconds, lease_seconds=config.lease_seconds)


def run(host: Host, *, sweep_seconds: float, lease_seconds: float) -> None:
    """Registers the worker and serves wake-ups until a signal tells it to drain."""
    host.register()
    look_for(host.store)
    # Before any thread starts: a signal waits for the main thread, and interrupts nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    host.start_heartbeat()
    logger.info("worker %s takes jobs of pool %s on %d devices", host.id, host.pool, len(host.ledger.devices))
    timing = {"interval_seconds": sweep_seconds, "lease_seconds": lease_seconds}
    try:
        with Sweeper(host.database, host.broker, host.store, **timing, then=host.look_for_work):
            with WakeUps(host.broker, host.pool, name=host.id, on_wake=host.wake):
                signal.sigwait(_END_SIGNALS)
                host.ending.set()
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends it at once
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            host.drain()
    finally:
        host.deregister()


def _needed(config: Settings) -> dict[str, str]:
    return {"DATABASE_URL": config.database_url, "REDIS_URL": config.redis_url, "STILLHOUSE_STORE": config.store}
