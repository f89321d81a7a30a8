"""The service as a team runs it: two APIs, two workers, PostgreSQL with a replica, Valkey, a store, each on a disk of its own.

Every part is a process that is started again when it dies. PostgreSQL and Valkey are behind proxies. Worker 2 and API 2 have
clocks of their own, which may be hours away from the others'.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.broker import queue_name
from service.client import Client
from service.database import Database, upgrade
from service.embedded.servers import free_port
from service.security import create_key
from tests.conftest import reserved_port
from tests.faults.clocks import with_own_clock
from tests.faults.disks import AwayStore, Disk, disk
from tests.faults.parts import Part, descendants
from tests.faults.postgres_pair import Node, PostgresPair, programs
from tests.faults.proxy import Proxy
from tests.faults.valkey_part import ValkeyPart
from tests.faults.waiting import until

LEASE_SECONDS, SLOTS, CPU_SLOT_CHARGE = 4.0, 2, 0.1
QUEUE = queue_name("default")
_READY_SECONDS = 120.0
_CRASH_POINTS = Path(__file__).with_name("crash_points")
_SETTINGS = {
    "STILLHOUSE_HEARTBEAT_SECONDS": "0.5",
    "STILLHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
    "STILLHOUSE_SWEEP_SECONDS": "0.5",
    "STILLHOUSE_STOP_GRACE_SECONDS": "15",
    "STILLHOUSE_PREFLIGHT_SECONDS": "30",
    "STILLHOUSE_ENTRY_SECONDS": "5",
    "STILLHOUSE_CPU_SLOT_CHARGE": str(CPU_SLOT_CHARGE),
}
_AUDIT = """
CREATE TABLE writers (job_id text, seq bigint, writer text NOT NULL, PRIMARY KEY (job_id, seq));
CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO writers VALUES (NEW.job_id, NEW.seq, current_setting('application_name')); RETURN NULL;
END $$;
CREATE TRIGGER note_writer AFTER INSERT ON job_events FOR EACH ROW EXECUTE FUNCTION note_writer();
"""
"""Which process wrote each event, by the name that it gave PostgreSQL: a worker that comes back from the dead is found by it."""


@dataclass(frozen=True)
class Trainer:
    """A process that trains or checks a job."""

    pid: int
    job_id: str
    is_check: bool


@dataclass
class Cluster:
    """The running service."""

    folder: Path
    postgres: PostgresPair
    postgres_proxy: Proxy
    valkey: ValkeyPart
    valkey_proxy: Proxy
    store: AwayStore
    disks: dict[str, Disk]
    """``database 1``, ``database 2``, ``store``, ``scratch 1``, ``scratch 2``."""
    apis: list[Part]
    workers: list[Part]
    urls: list[str]
    """Of the APIs."""
    api_key: str = ""
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, verify=False, timeout=10.0))
    clocks: list[Path] = field(default_factory=list)
    """What faketime reads, of the processes that have a clock of their own."""
    crash_points: Path = Path()

    @property
    def scratch(self) -> list[Disk]:
        """The disks of the workers."""
        return [disk for name, disk in self.disks.items() if name.startswith("scratch")]

    def database(self) -> Database:
        """Straight to the primary, past the proxy."""
        return Database(self.postgres.primary.url, pool_size=1)

    def get(self, path: str) -> Any:
        """The answer of the first API, as it is."""
        answer = self.http.get(f"{self.urls[0]}{path}", headers={"Authorization": f"Bearer {self.api_key}"})
        return answer.raise_for_status().json()

    def client(self, number: int = 0) -> Client:
        """A client of one of the APIs."""
        return Client(self.urls[number % len(self.urls)], self.api_key, timeout_seconds=10.0)

    def trainers(self, workers: Sequence[Part] | None = None) -> list[Trainer]:
        """The trainers that run now, found by the log that they write to."""
        found = []
        for worker in self.workers if workers is None else workers:
            for process in descendants(worker.pid or 0) if worker.pid else []:
                if (job := _trained(process)) is not None:
                    found.append(job)
        return found

    def fork_servers(self) -> list[psutil.Process]:
        """What trainers are forked from."""
        children = [child for worker in self.workers if worker.pid for child in descendants(worker.pid)]
        return [child for child in children if _is_fork_server(child)]

    def own_processes(self) -> list[psutil.Process]:
        """Every process of this machine whose environment names this cluster's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and any(str(self.folder) in value for value in process.environ().values()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_ready(self) -> bool:
        """Whether every API and every worker serves."""
        try:
            ready = all(self.http.get(f"{url}/readyz").is_success for url in self.urls)
        except httpx.TransportError:
            return False
        return ready and self._live_workers() == len(self.workers)

    def wait_until_ready(self) -> None:
        until(self.is_ready, "the service is not ready", timeout_seconds=_READY_SECONDS)

    def _live_workers(self) -> int:
        pids = {worker.pid for worker in self.workers}
        return sum(row["alive"] and row["pid"] in pids for row in self.get("/v1/workers")["data"])

    def tails(self) -> str:
        """The end of each part's log."""
        return "\n".join(f"--- {part.name}\n{part.tail()}" for part in [*self.apis, *self.workers])


@contextmanager
def cluster(folder: Path, *, replica: bool = True, faketime: str | None = None) -> Iterator[Cluster]:
    """Starts everything and yields once it serves. ``faketime`` is the library that gives a process a clock of its own."""
    with ExitStack() as stack:
        names = {"database 1": 700, "database 2": 700, "store": 300, "scratch 1": 200, "scratch 2": 200}
        disks = {
            name: stack.enter_context(disk(folder / name.replace(" ", "-"), mebibytes=size))
            for name, size in names.items()
            if replica or name != "database 2"
        }
        ports = {name: stack.enter_context(reserved_port()) for name in ("postgres", "valkey", "api 1", "api 2")}
        binaries, user = programs(disks["database 1"])
        nodes = [
            Node(f"postgres {name[-1]}", disks[name], port=free_port(), binaries=binaries, user=user)
            for name in disks
            if name.startswith("database")
        ]
        postgres_proxy = stack.enter_context(Proxy(nodes[0].port, port=ports["postgres"]).running())
        pair = PostgresPair(nodes[0], nodes[1] if replica else None, postgres_proxy.lead_to)
        stack.callback(pair.stop)
        nodes[0].part.start()
        nodes[0].wait_until_it_answers()
        upgrade(nodes[0].url)
        nodes[0].execute(_AUDIT)
        if replica:
            pair.make_replica()

        valkey = ValkeyPart(folder / "valkey", port=free_port())
        stack.callback(valkey.part.stop)
        valkey.part.start()
        valkey_proxy = stack.enter_context(Proxy(valkey.port, port=ports["valkey"]).running())
        valkey.wait_until_it_answers()

        store = AwayStore(disks["store"].folder / "store")
        crash_points = folder / "crash-points"
        crash_points.mkdir()
        environment = (
            {name: value for name, value in os.environ.items() if not name.startswith(("STILLHOUSE_", "PG"))}
            | _SETTINGS
            | {
                "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{postgres_proxy.port}/postgres",
                "REDIS_URL": valkey.url_at(valkey_proxy.port),
                "STILLHOUSE_STORE": f"file://{store.folder}",
                "STILLHOUSE_CRASH_POINTS": str(crash_points),
                "PYTHONPATH": os.pathsep.join([str(_CRASH_POINTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
                "PYTHONUNBUFFERED": "1",
                "OMP_NUM_THREADS": "1",
            }
        )
        clocks: list[Path] = []

        def clock_of(name: str) -> dict[str, str]:
            if faketime is None or not name.endswith("2"):
                return {}
            clocks.append(folder / f"{name.replace(' ', '-')}.clock")
            clocks[-1].write_text("+2h\n" if name.startswith("worker") else "-2h\n")
            return with_own_clock(faketime, clocks[-1])

        def part(name: str, module: Sequence[str], **more: str) -> Part:
            log = folder / f"{name.replace(' ', '-')}.log"
            own = environment | clock_of(name) | more
            made = Part(name, [sys.executable, "-m", *module], log=log, environment=own)
            stack.callback(made.stop)
            made.start()
            return made

        serve = ["service.cli", "serve", "--host", "127.0.0.1", "--port"]
        apis = [part(name, [*serve, str(ports[name])]) for name in ("api 1", "api 2")]
        workers = [
            part(f"worker {n}", ["worker", "--devices", f"cpu:{SLOTS}"], STILLHOUSE_SCRATCH=str(disks[f"scratch {n}"].folder))
            for n in (1, 2)
        ]
        urls = [f"http://127.0.0.1:{ports[api.name]}" for api in apis]
        made = Cluster(folder, pair, postgres_proxy, valkey, valkey_proxy, store, disks, apis, workers, urls)
        stack.callback(made.http.close)
        made.clocks, made.crash_points = clocks, crash_points
        with closing(made.database()) as database, database.transaction() as session:
            made.api_key = create_key(session, user_name="ada", role="admin", name="faults")[1]
        made.wait_until_ready()
        yield made


def _is_fork_server(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # what is forked from it has its command line
        parent = process.parent()
        return "multiprocessing.forkserver" in str(process.cmdline()) and parent is not None and "worker" in parent.cmdline()
    return False


def _trained(process: psutil.Process) -> Trainer | None:
    try:
        log = Path(f"/proc/{process.pid}/fd/1").readlink()
    except OSError:
        return None
    job_id, separator, which = log.parent.name.partition("-")
    return Trainer(process.pid, job_id, which.startswith("check")) if job_id.startswith("job_") and separator else None
