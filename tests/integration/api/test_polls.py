"""A poll sends the database's own text, past the models of the response; a list as well."""

import asyncio
import hashlib
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from service import jobs, queries
from service.api.dependencies import Services
from service.api.reads import Reads
from service.api.responses.jobs import job_view
from service.database import Database
from service.lifecycle import Status
from service.scheduling.queue_status_cache import QueueStatusCache
from service.security import key_digest
from service.settings import Settings
from service.tables import Job
from tests.integration.api.conftest import Api
from tests.integration.jobs.conftest import Team

ESTIMATE = {
    "parameters": {"student": 7},
    "flops": {},
    "memory_gib": 1e-07,
    "memory_by_training_gib": {},
    "steps": {"student": 20},
    "num_samples": 1259,
    "notes": [],
    "warnings": [],
    "seconds": 0.5,
}
UNUSUAL: dict[str, Any] = {
    "name": 'a "name", \\ é \u2028 😀',
    "labels": {"spec": "{}", "empty": ""},
    "progress": {"phase": "student", "step": 3, "eta_seconds": 1e22},
    "estimate": ESTIMATE,
    "warnings": [{"code": "rows_in_train", "message": "2 rows"}],
}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """Places in the queue are computed once, and compared."""
    return settings.model_copy(update={"queue_picture_seconds": 300})


@pytest.mark.parametrize("status", Status)
def test_what_a_poll_and_a_list_say_is_the_view_of_the_jobs_row(
    api: Api, viewer: httpx.Client, database: Database, status: Status
) -> None:
    job_id = Team(database).bring_to(status).job_id
    result = {"small": 1e-05, "large": 1.7976931348623157e308, "text": "]}\n\u2028", "nested": [{}, None, True]}
    with database.transaction() as session:
        changes = UNUSUAL | ({"result": result} if status is Status.SUCCEEDED else {})
        session.execute(update(Job).where(Job.id == job_id).values(**changes))
    polled = viewer.get(f"/v1/jobs/{job_id}")
    listed = viewer.get("/v1/jobs", params={"status": status}).json()["data"]
    services: Services = api.server.services
    with database.transaction() as session:
        row = queries.job_row(session, job_id, services.queue_status_cache)
    assert row.job.status == status
    assert polled.headers["etag"] == f'"{row.job.version}"'
    assert polled.json() == job_view(row).model_dump(mode="json")
    assert polled.json() in listed
    # Again, now that this version is kept as it was written.
    for headers in ({}, {"If-None-Match": f'"{row.job.version + 1}"'}):
        assert viewer.get(f"/v1/jobs/{job_id}", headers=headers).content == polled.content
    for _ in range(2):
        assert viewer.get("/v1/jobs", params={"status": status}).json()["data"] == listed


def test_the_place_of_a_queued_job_is_read_anew_while_its_version_stays(
    api: Api, viewer: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team(database)
    job_id = team.submit()
    first = viewer.get(f"/v1/jobs/{job_id}").json()
    services: Services = api.server.services
    team.submit(priority="high")
    monkeypatch.setattr(services.queue_status_cache, "_entries", {})  # what was computed is forgotten
    second = viewer.get(f"/v1/jobs/{job_id}").json()
    assert (second["version"], second["queue"]["position"]) == (first["version"], first["queue"]["position"] + 1)
    assert {**second, "queue": None} == {**first, "queue": None}


def test_no_more_is_read_of_a_job_than_the_version_that_who_asks_has_though_an_older_one_is_kept(
    viewer: httpx.Client, database: Database
) -> None:
    job_id, authorization = Team(database).submit(), viewer.headers["authorization"]

    async def scenario() -> None:
        async with aclosing(Reads(database, QueueStatusCache(lease_seconds=45, max_age_seconds=0))) as reads:
            await reads.job(job_id, authorization)
            with database.transaction() as session:
                newest = jobs.edit(session, job_id, name="new").version
            question = (key_digest(authorization), job_id, newest)
            found: Any = (await reads._read_jobs([question]))[question][1]
            assert (found.version, found.spec) == (newest, None)
            assert (await reads.job(job_id, authorization, known_version=newest)).body is None
            answers = await asyncio.gather(
                *(reads.job(job_id, authorization, known_version=each) for each in (newest, newest - 1))
            )
            assert [each.version for each in answers] == [newest, newest]
            assert [each.body is None for each in answers] == [True, False]

    asyncio.run(scenario())


def test_a_version_that_a_fail_over_took_back_is_not_sent_for_one_of_the_same_number(
    viewer: httpx.Client, database: Database
) -> None:
    job_id = Team(database).submit()
    paths = f"/v1/jobs/{job_id}", "/v1/jobs"
    for path in paths * 2:
        viewer.get(path)
    with database.transaction() as session:  # as if this server had never seen the version that was read
        session.execute(update(Job).where(Job.id == job_id).values(name="of the other server"))
    with database.transaction() as session:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        session.execute(text(f"{others} AND pid <> pg_backend_pid()"))
    polled = viewer.get(paths[0]).json()
    assert polled["name"] == "of the other server"
    assert viewer.get(paths[1]).json()["data"] == [polled]


def test_a_key_is_no_job_by_whatever_name(viewer: httpx.Client) -> None:
    key = viewer.headers["authorization"].removeprefix("Bearer ")
    assert viewer.get(f"/v1/jobs/{hashlib.sha256(key.encode()).hexdigest()}").status_code == 404
