"""A live API for each test module, and people with keys for each test. Every answer is held against the OpenAPI document."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service import workers
from service.api.app import create_app
from service.api.server import Server
from service.database import Database
from service.embedded.servers import Valkey
from service.ids import new_id
from service.jobs import Fence
from service.scheduling import Device, Offer, claim
from service.security import Role, create_key
from service.settings import Settings
from service.store import MARKER
from service.tables import Job, Worker
from tests.integration.api.contract import Contract

SPEC: dict[str, Any] = {
    "name": "digits",
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"source": "train", "architecture": {"name": "small-cnn", "width": 16}, "training": {"epochs": 1}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
    "training": {"epochs": 1},
}
SpecMaker = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Api:
    """A served application."""

    url: str
    settings: Settings
    server: Server
    contract: Contract

    @property
    def store_folder(self) -> Path:
        return Path(self.settings.store.removeprefix("file://"))

    @property
    def staging_folder(self) -> Path:
        assert self.settings.scratch is not None
        return self.settings.scratch

    def files(self) -> list[Path]:
        """Whatever lies in the store, but for its marker, and in the folder for uploads."""
        found = [path for folder in (self.store_folder, self.staging_folder) for path in folder.rglob("*")]
        return [path for path in found if path.name != MARKER]


@pytest.fixture(scope="module")
def settings(database_url: str, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A module may override this to change some."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "staging").mkdir()
    (folder / "files").mkdir()
    return Settings.model_validate(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": valkey_server.url,
            "store": f"file://{folder}/store",
            "scratch": folder / "staging",
            "sweep_seconds": 0.2,
            "preflight": False,
            "queue_picture_seconds": 0,
            "pools": ["default", "forgotten", "other"],
            "requests_per_second": 100_000,
            "max_upload_bytes": 4_000_000,
            "file_roots": [folder / "files"],
        }
    )


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[Api]:
    """The application behind a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(settings)
        server = Server(app, host="127.0.0.1", port=0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Api(url=url, settings=settings, server=server, contract=Contract(app.openapi()))
        finally:
            server.should_exit = True
            thread.join()


@dataclass(frozen=True)
class Team:
    """Makes people with keys."""

    api: Api
    database: Database
    stack: ExitStack

    def join(self, name: str, role: Role = "member") -> httpx.Client:
        """A client with a fresh key of that user."""
        with self.database.transaction() as session:
            _, secret = create_key(session, user_name=name, role=role)
        return self.client(secret)

    def client(self, key: str | None = None) -> httpx.Client:
        """A client with that key, or with none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        hooks = {"response": [self.api.contract.check]}
        made = httpx.Client(base_url=self.api.url, headers=headers, timeout=30, trust_env=False, verify=False, event_hooks=hooks)
        return self.stack.enter_context(made)


@pytest.fixture
def team(api: Api, database: Database) -> Iterator[Team]:
    with ExitStack() as stack:
        yield Team(api=api, database=database, stack=stack)


@pytest.fixture
def admin(team: Team) -> httpx.Client:
    return team.join("root", "admin")


@pytest.fixture
def member(team: Team) -> httpx.Client:
    return team.join("ada")


@pytest.fixture
def viewer(team: Team) -> httpx.Client:
    return team.join("eve", "viewer")


def spec(**changes: Any) -> dict[str, Any]:
    """A spec that fits, with some top-level fields changed."""
    return {**SPEC, **changes}


def submit(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    """Submits a job and answers it."""
    answer = client.post("/v1/jobs", json=spec(**changes))
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


@dataclass(frozen=True)
class Host:
    """A worker whose heart beats, and that trains nothing: what it claims runs until the test ends it."""

    database: Database
    id: str
    pool: str
    devices: tuple[Device, ...]

    def claim(self) -> Fence | None:
        """Takes the job whose turn it is on what is free here."""
        with self.database.transaction() as session:
            held = session.scalars(select(Job.devices).where(Job.worker_id == self.id, Job.status == "running"))
            taken = {name for names in held for name in names or ()}
            free = tuple(device for device in self.devices if device.name not in taken)
            found = claim(session, Offer(self.id, self.pool, free), lease_seconds=300)
        return None if found is None else found.fence

    def start(self) -> Fence:
        """Takes one; there is one."""
        fence = self.claim()
        assert fence is not None
        return fence

    def claims(self) -> list[str]:
        """All that it can take now, in this order."""
        return [fence.job_id for fence in iter(self.claim, None)]

    def do(self, write: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """A write of a running job, or of this worker's row."""
        with self.database.transaction() as session:
            return write(session, *arguments, **named)


def add_host(database: Database, devices: str = "cpu:1", *, name: str = "gpu-1", pool: str = "default", gib: float = 80) -> Host:
    """``devices`` as a worker's option says them: ``cpu:N`` slots, ``cuda:N`` GPUs of ``gib`` each."""
    host = Host(database, new_id("worker"), pool, tuple(_devices(devices, gib)))
    rows = [{"name": each.name, "kind": each.name.partition(":")[0], "memory_gib": each.memory_gib} for each in host.devices]
    host.do(workers.register, host.id, host=name, pid=1, pool=pool, devices=rows)
    return host


def _devices(text: str, gib: float) -> Iterator[Device]:
    for part in text.split(","):
        kind, _, count = part.partition(":")
        for number in range(int(count)):
            yield Device(f"{kind}:{number}", gib if kind == "cuda" else None)


def run_one(database: Database, *, pool: str = "default", lease_seconds: float = 300) -> Fence:
    """Claims the next job, as a worker does."""
    worker_id = new_id("worker")
    with database.transaction() as session:
        devices = [{"name": "cpu:0", "kind": "cpu", "memory_gib": None}]
        session.add(Worker(id=worker_id, host="here", pid=1, pool=pool, slots=4, devices=devices))
        session.flush()
        offer = Offer(worker_id, pool, (Device("cpu:0"),))
        found = claim(session, offer, lease_seconds=lease_seconds)
    assert found is not None
    return found.fence
