"""Workers over HTTP: what they have, what runs on it, and drains."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from service import workers
from service.database import Database
from service.tables import Worker
from tests.integration.api.conftest import add_host, submit


def test_a_worker_tells_its_devices_and_the_job_on_each(member: httpx.Client, database: Database) -> None:
    host = add_host(database, "cuda:3,cpu:1", name="gpu-7", pool="other", gib=40)
    two = submit(member, resources={"pool": "other", "gpus": 2})
    slot = submit(member, resources={"pool": "other"})
    assert set(host.claims()) == {two["id"], slot["id"]}
    (told,) = member.get("/v1/workers").json()["data"]
    assert (told["id"], told["host"], told["pool"], told["slots"]) == (host.id, "gpu-7", "other", 4)
    assert (told["alive"], told["draining"], set(told["job_ids"])) == (True, False, {two["id"], slot["id"]})
    assert [(device["name"], device["memory_gib"], device["job_ids"]) for device in told["devices"]] == [
        ("cuda:0", 40, [two["id"]]),
        ("cuda:1", 40, [two["id"]]),
        ("cuda:2", 40, []),
        ("cpu:0", None, [slot["id"]]),
    ]


def test_a_silent_worker_is_told_apart_and_one_that_ended_is_not_listed(member: httpx.Client, database: Database) -> None:
    silent, ended = add_host(database, name="a"), add_host(database, name="b")
    with database.transaction() as session:
        past = Worker.heartbeat_at - timedelta(hours=1)
        session.execute(update(Worker).where(Worker.id == silent.id).values(heartbeat_at=past))
    ended.do(workers.deregister, ended.id)
    assert [(each["id"], each["alive"]) for each in member.get("/v1/workers").json()["data"]] == [(silent.id, False)]
    with database.transaction() as session:
        session.execute(update(Worker).values(heartbeat_at=datetime.now(UTC) - timedelta(days=8)))
    assert member.get("/v1/workers").json()["data"] == [], "it is not coming back"


@pytest.mark.parametrize(("body", "finishes"), [(None, False), ({"jobs": "requeue"}, False), ({"jobs": "finish"}, True)])
def test_a_drained_worker_gets_nothing_more_until_that_is_taken_back(
    admin: httpx.Client, member: httpx.Client, database: Database, body: dict[str, str] | None, finishes: bool
) -> None:
    host = add_host(database)
    job = submit(member)
    for _ in range(2):
        drained = admin.post(f"/v1/workers/{host.id}/drain", json=body)
        assert (drained.status_code, drained.json()["draining"]) == (200, True)
    asked = host.do(workers.beat, host.id, ending=False)
    assert (asked.draining, asked.finish) == (True, finishes)
    assert host.claims() == []
    assert member.get(f"/v1/jobs/{job['id']}/explain").json()["blocker"]["cause"] == "draining"
    assert admin.post(f"/v1/workers/{host.id}/undrain").json()["draining"] is False
    assert host.do(workers.beat, host.id, ending=False).draining is False
    assert host.claims() == [job["id"]]


@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_a_drain_that_cannot_be_is_refused_with_the_reason(
    admin: httpx.Client, member: httpx.Client, database: Database, verb: str
) -> None:
    host = add_host(database)
    assert member.post(f"/v1/workers/{host.id}/{verb}").status_code == 403
    unknown = admin.post(f"/v1/workers/worker_none/{verb}")
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "there is no worker 'worker_none'; GET /v1/workers lists them",
    )
    host.do(workers.deregister, host.id)
    ended = admin.post(f"/v1/workers/{host.id}/{verb}")
    assert ended.status_code == 404
    assert ended.json()["detail"] == f"worker {host.id!r} has ended; GET /v1/workers lists those that run"


@pytest.mark.parametrize("body", [{"jobs": "kill"}, {"jobs": None}, {"finish": True}, []])
def test_a_drain_knows_two_ways(admin: httpx.Client, database: Database, body: object) -> None:
    host = add_host(database)
    assert admin.post(f"/v1/workers/{host.id}/drain", json=body).status_code == 422
    assert admin.get("/v1/workers").json()["data"][0]["draining"] is False
