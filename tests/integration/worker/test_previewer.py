"""A worker makes previews: by the same process as a check, fenced, and given back where it drains."""

import threading
from pathlib import Path

import pytest

from service import jobs, previews
from service.database import Database
from service.settings import Settings
from service.spec import parse_spec
from service.store import Store
from service.tables import Preview
from tests.integration.jobs.conftest import SPEC, Team
from worker.host.executor import LocalExecutor
from worker.host.fork_server import warm_up
from worker.host.miniature import MiniatureRunner
from worker.host.previewer import Previewer


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


@pytest.fixture
def leaving() -> threading.Event:
    return threading.Event()


@pytest.fixture
def previewer(database: Database, store: Store, tmp_path: Path, leaving: threading.Event) -> Previewer:
    Team(database)
    settings = Settings.model_validate({"heartbeat_seconds": 0.2})
    runner = MiniatureRunner(
        executor=LocalExecutor(), database=database, store=store, settings=settings, scratch=tmp_path, leaving=leaving.is_set
    )
    return Previewer("default", runner=runner, database=database, lease_seconds=settings.lease_seconds)


def ask(database: Database, **changes: object) -> str:
    spec = parse_spec(SPEC | changes)
    return database.run(lambda session: previews.ask(session, spec, owner_id="user_ana", num_samples=2)).id


def read(database: Database, preview_id: str) -> Preview:
    return database.run(lambda session: previews.find(session, preview_id))


def test_how_a_network_reads_that_is_not_trained_yet_is_not_made_up(
    previewer: Previewer, database: Database, tmp_path: Path
) -> None:
    teacher = database.run(lambda session: jobs.submit(session, owner_id="user_ana", spec=parse_spec(SPEC), preflight=True).id)
    preview_id = ask(database, teacher={"source": f"job:{teacher}"})
    assert previewer.make_next()
    error = read(database, preview_id).error
    assert error is not None
    assert (error["code"], error["details"]) == ("input_unavailable", {"pointer": "/teacher/source"})
    assert error["message"].startswith(f"job:{teacher} is not trained yet")


def test_what_every_network_reads_is_made_and_no_file_stays(previewer: Previewer, database: Database, tmp_path: Path) -> None:
    preview_id = ask(database)
    assert previewer.make_next()
    found = read(database, preview_id)
    assert found.error is None
    assert found.result is not None
    assert {role: len(samples) for role, samples in found.result["samples"].items()} == {"teacher": 2, "student": 2}
    assert found.result["samples"]["student"][0]["read"]["thumbnail"].startswith("data:image/png;base64,")
    assert not previewer.make_next()
    assert list(tmp_path.iterdir()) == []


def test_data_that_are_gone_fail_it_and_a_draining_worker_gives_it_back(
    previewer: Previewer, database: Database, leaving: threading.Event
) -> None:
    gone = ask(database, dataset={"source": f"dataset:ds_{'0' * 26}"})
    previewer.make_next()
    error = read(database, gone).error
    assert error is not None
    assert error["code"] == "input_unavailable"
    left = ask(database)
    leaving.set()
    assert not previewer.make_next()
    found = read(database, left)
    assert (found.finished_at, found.lease_expires_at, found.attempt) == (None, None, 1)
