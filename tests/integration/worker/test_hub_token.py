"""A user's token for the Hub: it fetches what it may, and nothing of the service ever holds it."""

import fcntl
import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text, update

from service import jobs
from service.api.app import create_app
from service.api.server import Server
from service.client import ApiError, Client
from service.database import Database
from service.embedded.servers import Valkey
from service.security import create_key
from service.settings import Settings
from service.tables import Job, JobSource, UserSecret
from tests.hub import Hub, hub_server
from tests.integration.feelings import CLASSES
from tests.integration.test_chain import train
from tests.integration.test_teachers import CNN, SHORT, spec
from tests.integration.worker.conftest import Queue, WorkerProcess, Workers, until
from worker.protocol import RESULT_FOLDER

CANARY = "hf_thisCanaryMustNotSing"
KEY = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = COMMIT[::-1]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    train(spec({"architecture": CNN, "training": SHORT}), folder / "job")
    return folder / "job" / RESULT_FOLDER / "teacher"


@pytest.fixture(scope="module")
def hub(network: Path, texts: Path) -> Iterator[Hub]:
    with hub_server() as hub:
        hub.add("anna/gated", network, commit=COMMIT, token=CANARY)
        hub.add("anna/open", network, commit=COMMIT)
        hub.add("anna/feelings", texts.parent, commit=COMMIT, token=CANARY)
        yield hub


@pytest.fixture
def hub_worker(hub: Hub, workers: Workers, queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WorkerProcess:
    """A worker that has that Hub, and the key of the service."""
    hub.is_down = False
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "STILLHOUSE_SECRET_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    return workers.running() or workers.start()


@contextmanager
def served(database_url: str, valkey: Valkey, store_url: str, scratch: Path, *, key: str = KEY) -> Iterator[str]:
    """The API of that worker's service."""
    settings = Settings.model_validate(
        {"DATABASE_URL": database_url, "REDIS_URL": valkey.url, "store": store_url, "scratch": scratch, "secret_key": key}
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(create_app(settings), host="127.0.0.1", port=0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def key_of(database: Database, name: str) -> str:
    with database.transaction() as session:
        return create_key(session, user_name=name, role="member")[1]


def learns_from(source: str, **changes: Any) -> dict[str, Any]:
    training = {"max_steps": 4, "batch_size": 32}
    return spec({"source": source, "accept_score": "any"}, training=training, evaluation={"control": False}) | changes


def reads(source: str, **dataset: Any) -> dict[str, Any]:
    network = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = {"name": "transformers", "model_type": "bert", "config": network}
    tokenizer, training = {"train": "wordpiece", "vocab_size": 100, "max_length": 8}, {"max_steps": 4, "batch_size": 16}
    return {
        "task": "text-classification",
        "dataset": {"source": source} | dataset,
        "teacher": {"architecture": bert, "tokenizer": tokenizer, "training": training, "accept_score": "any"},
        "student": {"architecture": bert},
        "training": training,
        "evaluation": {"control": False},
    }


def test_a_token_fetches_a_gated_network_and_is_nowhere_to_be_found(
    hub_worker: WorkerProcess,
    hub: Hub,
    queue: Queue,
    database_url: str,
    valkey_server: Valkey,
    store_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = []
    with (
        served(database_url, valkey_server, store_url, tmp_path) as url,
        Client(url, key_of(queue.database, "ana")) as ana,
        Client(url, key_of(queue.database, "ben")) as ben,
    ):
        ana.set_hub_token("hf_an_older_one")
        before = ana.me().hub_token_set_at
        ana.set_hub_token(CANARY)
        assert before is not None
        assert (ana.me().hub_token_set_at or before) > before
        hub.is_down = True
        waiting = ana.submit(learns_from("hub:anna/gated"))
        until(lambda: queue.job(waiting.id).status == "running")
        hub.is_down = False
        done = ana.wait(waiting.id)
        assert done.status == "succeeded", done.error
        assert (queue.job(done.id).crashes, queue.job(done.id).attempt) == (0, 1)

        asked = len(hub.downloads())
        again = ana.wait(ana.submit(learns_from("hub:anna/gated")).id)
        assert again.status == "succeeded", again.error
        assert len(hub.downloads()) == asked, "the host has it"

        # What the host has is no one else's, and is refused before the job waits.
        refused = ben.wait(ben.submit(learns_from("hub:anna/gated")).id)
        absent = ana.wait(ana.submit(learns_from("hub:anna/none")).id)
        assert len(hub.downloads()) == asked
        for job, why in ((refused, "anna/gated is gated"), (absent, "there is no repository anna/none")):
            assert job.error is not None
            assert (job.status, job.attempt, job.error.code) == ("failed", 0, "input_unavailable")
            assert why in job.error.message
            assert job.error.details["pointer"] == "/teacher/source"

        # What was encrypted with another key lets nobody in, and is not asked for as if it were not there.
        ben.set_hub_token(CANARY)
        with queue.database.transaction() as session:
            other = Fernet(Fernet.generate_key()).encrypt(CANARY.encode())
            session.execute(update(UserSecret).where(UserSecret.user_id == ben.me().id).values(value=other))
        unread = ben.wait(ben.submit(learns_from("hub:anna/gated")).id)
        assert unread.error is not None
        assert "let its operator give API and workers one STILLHOUSE_SECRET_KEY" in str(unread.error.hint)
        assert unread.error.details["pointer"] == "/teacher/source"

        with pytest.raises(ApiError) as wrong:
            ana.set_hub_token(f"{CANARY} and more")
        answers += [str(wrong.value), repr(wrong.value), ana.me().model_dump_json()]
        for job in (done, again, refused, absent):
            answers += [event.model_dump_json() for event in ana.events(job.id)]
            answers += [ana.job(job.id).model_dump_json(), *ana.logs(job.id)]
        ana.download(done.id, tmp_path / "downloaded")
        with queue.database.transaction() as session:
            tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
            answers += [str(row) for table in tables for row in session.execute(text(f'SELECT * FROM "{table}"'))]
            noted = session.get_one(JobSource, (done.id, "hub:anna/gated"))
            assert noted.revision == COMMIT
        ana.remove_hub_token()
        assert ana.me().hub_token_set_at is None

    assert not [answer for answer in answers if CANARY in answer]
    assert CANARY not in caplog.text
    for folder in (hub_worker.folder, Path(queue.store_folder), tmp_path):
        for path in folder.rglob("*"):
            assert CANARY not in path.name
            assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_a_token_reads_a_gated_dataset_which_is_checked_before_the_job_waits(
    hub_worker: WorkerProcess, queue: Queue, database_url: str, valkey_server: Valkey, store_url: str, tmp_path: Path
) -> None:
    source = "hub:anna/feelings"
    with (
        served(database_url, valkey_server, store_url, tmp_path) as url,
        Client(url, key_of(queue.database, "ana")) as ana,
        Client(url, key_of(queue.database, "ben")) as ben,
    ):
        ana.set_hub_token(CANARY)
        done = ana.wait(ana.submit(reads(source)).id)
        assert done.status == "succeeded", done.error
        assert ana.report(done.id)["data"]["classes"] == CLASSES
        with queue.database.transaction() as session:
            assert session.get_one(JobSource, (done.id, source)).revision == COMMIT
        for job, pointer, why in (
            (ben.submit(reads(source)), "/dataset/source", "anna/feelings is gated"),
            (ana.submit(reads(source, input="review")), "/dataset/source", "no column 'review'; its columns are 'text', 'label'"),
            (ana.submit(reads(source, splits={"train": "learn"})), "/dataset/splits/train", "'learn'"),
        ):
            refused = (ana if job.owner == "ana" else ben).wait(job.id)
            assert refused.error is not None
            assert (refused.status, refused.attempt, refused.error.details["pointer"]) == ("failed", 0, pointer)
            assert why in refused.error.message


def test_an_attempt_on_another_host_gets_the_commit_that_the_first_one_got(
    hub_worker: WorkerProcess, hub: Hub, queue: Queue, network: Path
) -> None:
    forever = {"max_steps": 1_000_000, "batch_size": 32, "checkpoint_steps": 20}
    job_id = queue.submit(**learns_from("hub:anna/open", training=forever))
    queue.until_checkpoint(job_id, phase="student")
    with queue.database.transaction() as session:
        jobs.request_pause(session, job_id)
    queue.until_status(job_id, "paused")
    hub.add("anna/open", network, commit=LATER)
    shutil.rmtree(hub_worker.folder / "scratch" / "network-cache")  # as on another host
    fetched = len(hub.downloads())
    with queue.database.transaction() as session:
        jobs.resume(session, job_id)
    queue.broker.wake("default")
    queue.until_checkpoint(job_id, phase="student", attempt=2)
    assert len(hub.downloads()) > fetched
    assert [path for path in hub.asked if LATER in path] == []
    with queue.database.transaction() as session:
        assert session.get_one(JobSource, (job_id, "hub:anna/open")).revision == COMMIT
    assert queue.job(job_id).crashes == 0


def test_what_ends_a_job_ends_its_wait_for_a_network(hub_worker: WorkerProcess, hub: Hub, queue: Queue) -> None:
    forever = {"max_steps": 1_000_000, "batch_size": 32, "checkpoint_steps": 20}
    hub.add("anna/open", hub.repositories["anna/open"].commits[COMMIT], commit=COMMIT)
    job_id = queue.submit(**learns_from("hub:anna/open", training=forever))
    queue.until_status(job_id, "running")

    def ask(act: Callable[..., object]) -> None:
        with queue.database.transaction() as session:
            act(session, job_id)
        queue.broker.wake("default")

    ask(jobs.request_pause)
    queue.until_status(job_id, "paused")
    name = hashlib.sha256(f"hub:anna/open@{COMMIT}".encode()).hexdigest()[:40]
    with (hub_worker.folder / "scratch" / "network-cache" / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as if another worker were fetching it
        ask(jobs.resume)
        queue.until_status(job_id, "running")
        ask(jobs.request_pause)
        queue.until_status(job_id, "paused")
        with queue.database.transaction() as session:
            session.execute(update(Job).values(run_seconds=1e9))
        ask(jobs.resume)
        failed = queue.until_status(job_id, "failed")
    assert failed.error is not None
    assert failed.error["code"] == "time_limit"
    assert failed.crashes == 0


def test_a_hub_that_stays_away_gives_the_devices_to_others_and_charges_no_attempt(
    hub: Hub, workers: Workers, queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "STILLHOUSE_HUB_SECONDS": "0.2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STILLHOUSE_PREFLIGHT", "false")
    workers.start()
    hub.is_down = True
    job_id = queue.submit(**learns_from("hub:anna/open"))
    until(lambda: queue.job(job_id).losses)
    hub.is_down = False
    done = queue.until_status(job_id, "succeeded")
    assert done.crashes == 0
    assert done.attempt >= 2
    told = [event.message for event in queue.events(job_id, "job.queued")]
    assert [message for message in told if "was lost: hub:anna/open cannot be fetched: the Hub cannot be reached" in message]


def test_without_a_key_of_its_own_a_service_takes_no_token(
    queue: Queue, database_url: str, valkey_server: Valkey, store_url: str, tmp_path: Path
) -> None:
    with (
        served(database_url, valkey_server, store_url, tmp_path, key="") as url,
        Client(url, key_of(queue.database, "ana")) as ana,
        pytest.raises(ApiError, match="STILLHOUSE_SECRET_KEY") as refused,
    ):
        ana.set_hub_token(CANARY)
    assert (refused.value.status, refused.value.code) == (409, "secret_key_missing")
    with pytest.raises(ValueError, match="32 random bytes") as damaged:
        create_app(Settings.model_validate({"DATABASE_URL": database_url, "REDIS_URL": "x", "store": "x", "secret_key": CANARY}))
    assert CANARY not in str(damaged.value)
