"""Previews over HTTP: asked for, waited for, read later, and refused where nobody could make one."""

import json
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from service import previews
from service.cli import app
from service.client import Client, PreviewFailed
from service.database import Database
from service.errors import JobFailure
from service.previews import MAX_ATTEMPTS, MAX_UNMADE, PreviewFence
from service.tables import Job, Preview
from tests.integration.api.conftest import Api, Host, Team, add_host, spec

READ = {"kind": "text", "tokens": [{"id": 5, "text": "a", "counts": True}]}
MADE: dict[str, Any] = {
    "samples": {"student": [{"place": "row 0", "labels": {"label": "x"}, "weight": None, "read": READ}]},
    "warnings": [{"code": "c", "message": "told"}],
}


ESTIMATE: dict[str, Any] = {
    "parameters": {}, "flops": {}, "memory_gib": None, "memory_by_training_gib": {}, "steps": {}, "num_samples": None,
    "notes": [], "seconds": 1.0,
}  # fmt: skip


@pytest.fixture
def host(database: Database) -> Host:
    return add_host(database, "cpu:1")


def asked(client: httpx.Client, *, wait: int = 0, **changes: Any) -> httpx.Response:
    return client.post("/v1/jobs/preview", json=spec(**changes), headers={"Prefer": f"wait={wait}"})


def make(database: Database, result: dict[str, Any] | JobFailure = MADE) -> Preview:
    """Makes the next preview, as a worker would."""
    while (claimed := database.run(lambda session: previews.claim(session, "default", lease_seconds=60))) is None:
        pass
    assert database.run(lambda session: previews.finish(session, PreviewFence(claimed.id, claimed.attempt), result))
    return claimed


def test_where_no_worker_lives_nothing_is_stored(member: httpx.Client, database: Database) -> None:
    answer = asked(member)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert database.run(lambda session: previews.unmade_pools(session)) == []


@pytest.mark.usefixtures("host")
def test_a_faulty_spec_is_refused_as_at_its_submission(member: httpx.Client) -> None:
    answer = asked(member, method={"name": "dkd", "temperature": 0})
    assert (answer.status_code, [each["pointer"] for each in answer.json()["errors"]]) == (422, ["/method/temperature"])


@pytest.mark.usefixtures("host")
def test_one_that_is_not_there_in_time_is_looked_for_later_by_everybody(
    member: httpx.Client, viewer: httpx.Client, database: Database
) -> None:
    answer = asked(member)
    assert (answer.status_code, answer.json()["status"], answer.json()["samples"]) == (202, "waiting", None)
    where = answer.headers["location"]
    claimed = make(database)
    assert claimed.num_samples == 5
    found = viewer.get(where).json()
    assert (found["id"], found["status"], found["warnings"]) == (claimed.id, "succeeded", MADE["warnings"])
    assert found["samples"]["student"][0]["read"]["tokens"][0]["text"] == "a"
    assert viewer.get("/v1/previews/preview_x").status_code == 404


@pytest.mark.usefixtures("host")
def test_who_waits_is_answered_once_it_is_made(api: Api, member: httpx.Client, database: Database) -> None:
    maker = threading.Thread(target=make, args=(database,))
    maker.start()
    answer = asked(member, wait=30)
    maker.join()
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    maker = threading.Thread(target=make, args=(database,))
    maker.start()
    with Client(api.url, member.headers["authorization"].removeprefix("Bearer ")) as client:
        assert client.preview(spec(), samples=1).samples["student"][0].labels == {"label": "x"}
    maker.join()


@pytest.mark.usefixtures("host")
def test_why_none_can_be_made_is_told(api: Api, member: httpx.Client, database: Database) -> None:
    failure = JobFailure(code="invalid_data", message="row 7 is broken", hint="Mend it.", details={"pointer": "/dataset/source"})
    maker = threading.Thread(target=make, args=(database, failure))
    maker.start()
    answer = asked(member, wait=30).json()
    maker.join()
    assert (answer["status"], answer["error"]) == ("failed", failure.model_dump())
    maker = threading.Thread(target=make, args=(database, failure))
    maker.start()
    key = member.headers["authorization"].removeprefix("Bearer ")
    terminal = CliRunner(env={"STILLHOUSE_URL": api.url, "STILLHOUSE_API_KEY": key})
    failed = terminal.invoke(app, ["preview", "-"], input=json.dumps(spec()))
    maker.join()
    assert isinstance(failed.exception, PreviewFailed)
    assert "invalid_data at /dataset/source: row 7 is broken" in str(failed.exception)


def _yaml() -> str:
    return (
        "".join(f"{name}: {value}\n" for name, value in spec().items() if name != "task").replace("'", '"').replace("None", "~")
    )


@pytest.mark.usefixtures("host")
def test_a_user_waits_for_a_few_at_most(member: httpx.Client, team: Team, database: Database) -> None:
    mine = [asked(member) for _ in range(MAX_UNMADE)]
    refused = asked(member)
    assert (refused.status_code, refused.json()["code"]) == (429, "preview_limit_reached")
    assert asked(team.join("ben")).status_code == 202
    assert make(database).id == mine[0].json()["id"], "the oldest first"
    assert asked(member).status_code == 202


@pytest.mark.usefixtures("host")
def test_one_of_a_silent_worker_is_made_by_another_and_not_for_ever(member: httpx.Client, database: Database) -> None:
    preview_id = asked(member).json()["id"]
    for attempt in range(1, MAX_ATTEMPTS + 1):
        claimed = database.run(lambda session: previews.claim(session, "default", lease_seconds=-1))
        assert claimed is not None
        assert (claimed.id, claimed.attempt) == (preview_id, attempt)
        database.run(previews.expire)
        fence = PreviewFence(claimed.id, attempt)
        assert not database.run(partial(previews.finish, fence=fence, made=MADE)), "it is another's by now"
    found = member.get(f"/v1/previews/{preview_id}").json()
    assert found["error"]["message"] == "It was tried 3 times: the worker that made it fell silent."


@pytest.mark.usefixtures("host")
def test_it_is_kept_for_a_day(member: httpx.Client, database: Database) -> None:
    old, young = (asked(member).json()["id"] for _ in range(2))
    yesterday = Preview.created_at - timedelta(hours=25)
    database.run(lambda session: session.execute(update(Preview).where(Preview.id == old).values(created_at=yesterday)))
    database.run(previews.expire)
    assert [member.get(f"/v1/previews/{each}").status_code for each in (old, young)] == [404, 200]


@pytest.mark.usefixtures("host")
def test_of_a_job_is_shown_what_its_check_read_or_else_what_its_spec_reads(
    api: Api, member: httpx.Client, database: Database
) -> None:
    job_id = member.post("/v1/jobs", json=spec()).json()["id"]
    made = asked(member).json()["id"]
    assert make(database).id == made

    def note(session: Session, preview_id: str) -> None:
        job = session.get_one(Job, job_id)
        job.estimate, job.version = ESTIMATE | {"preview_id": preview_id}, job.version + 1

    with Client(api.url, member.headers["authorization"].removeprefix("Bearer ")) as client:
        database.run(partial(note, preview_id=made))
        assert client.preview_of_job(job_id).samples["student"][0].labels == {"label": "x"}
        database.run(partial(note, preview_id="preview_of_yesterday"))
        maker = threading.Thread(target=make, args=(database, MADE | {"samples": {}}))
        maker.start()
        assert client.preview_of_job(job_id).samples == {}
        maker.join()
