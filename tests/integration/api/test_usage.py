"""What every user used, over HTTP."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service import jobs
from service.database import Database
from service.tables import Job, UsageHour, User
from tests.integration.api.conftest import Team, add_host, submit
from tests.integration.jobs.conftest import succeed

INDIA = timezone(timedelta(hours=5, minutes=30))


def used(client: httpx.Client, since: datetime | None = None) -> dict[str, dict[str, Any]]:
    answer = client.get("/v1/usage", params=None if since is None else {"since": since.isoformat()})
    assert answer.status_code == 200, answer.text
    return {line["user"]: line for line in answer.json()["data"]}


def test_gpu_seconds_and_cpu_slot_seconds_are_told_with_the_share_that_they_are(
    team: Team, admin: httpx.Client, database: Database
) -> None:
    ana, ben = team.join("ana"), team.join("ben")
    admin.patch("/v1/users/ben", json={"share_weight": 2})
    host = add_host(database, "cuda:2,cpu:2")
    for client, resources in ((ana, {"gpus": 2}), (ben, {"cpu_slots": 2})):
        submit(client, resources=resources)
        fence = host.start()
        with database.transaction() as session:  # it began a quarter of an hour ago
            session.execute(update(Job).values(started_at=Job.started_at - timedelta(seconds=900)))
        host.do(succeed, fence)
        with database.transaction() as session:
            assert jobs.get(session, fence.job_id).gpu_seconds == pytest.approx(1800 if "gpus" in resources else 0, rel=0.01)
    told = used(ana)
    assert list(told) == ["ana", "ben", "root"], "who used most comes first"
    assert (told["ana"]["gpu_seconds"], told["ana"]["cpu_slot_seconds"]) == (pytest.approx(1800, rel=0.01), 0)
    assert (told["ben"]["gpu_seconds"], told["ben"]["cpu_slot_seconds"]) == (0, pytest.approx(1800, rel=0.01))
    assert told["ana"]["share"] == pytest.approx(10 / 11, rel=0.01), "a CPU slot counts a tenth of a GPU"
    assert (told["ben"]["fair_share"], told["ben"]["weight"], told["ben"]["jobs"]) == (0.5, 2, 1)
    assert told["ana"]["decayed"] == pytest.approx(1800, rel=0.01)
    assert (told["root"]["share"], told["root"]["jobs"]) == (0, 0)


def test_since_counts_whole_hours_of_utc_in_whatever_zone_it_is_said(member: httpx.Client, database: Database) -> None:
    with database.transaction() as session:
        ada = session.query(User).filter_by(name="ada").one()
        for hour, seconds in ((5, 1.0), (6, 10.0), (7, 100.0)):
            at = datetime(2026, 11, 2, hour, tzinfo=UTC)
            row = UsageHour(user_id=ada.id, hour=at, gpu_seconds=seconds, cpu_slot_seconds=0.0, jobs=1)
            session.add(row)
    whole = {since: used(member, since)["ada"]["gpu_seconds"] for since in (None, datetime(2026, 11, 2, 6, tzinfo=UTC))}
    assert list(whole.values()) == [111, 110]
    half = datetime(2026, 11, 2, 12, 15, tzinfo=INDIA)  # 06:45 UTC
    assert used(member, half)["ada"]["gpu_seconds"] == 110
    answer = member.get("/v1/usage", params={"since": half.isoformat()}).json()
    assert datetime.fromisoformat(answer["since"]) == datetime(2026, 11, 2, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "status", "words"),
    [
        ("2026-11-02T00:00:00", 400, "needs a time zone"),
        ("yesterday", 422, "query:since"),
        ("2026-11-02", 400, "time zone"),
        ("0001-01-01T00:00:00+05:30", 400, "outside the years 1 to 9999"),
    ],
)
def test_a_since_that_is_no_moment_is_refused(member: httpx.Client, since: str, status: int, words: str) -> None:
    answer = member.get("/v1/usage", params={"since": since})
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
