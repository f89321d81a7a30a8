"""The SQL statements of a submission: a fixed number, however many teachers and needed jobs a spec names, and one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import event, update

from service import jobs, submission
from service.database import Database
from service.errors import InvalidSpec
from service.formats import inspect_source
from service.ids import new_id
from service.security import Caller
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo
from service.tables import Dataset, User
from tests.integration.api.conftest import Api, add_host, run_one, spec, submit
from tests.integration.jobs.conftest import student

MOST_STATEMENTS = 10
"""With an idempotency key, a limit of unstarted jobs, an uploaded dataset, teachers of both kinds, needed jobs and labels."""


@contextmanager
def recorded_statements(database: Database) -> Iterator[list[str]]:
    """Every statement that this process sends through that engine; BEGIN and COMMIT are none."""
    seen: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", record)


@pytest.mark.parametrize("num_of_each", [1, 4])
def test_a_submission_takes_a_fixed_number_of_statements(
    api: Api, member: httpx.Client, database: Database, num_of_each: int
) -> None:
    models = [finished_model(database, submit(member)["id"]) for _ in range(num_of_each)]
    needed = submit(member)["id"]
    caller = caller_of(database, needed)
    with database.transaction() as session:
        session.execute(update(User).where(User.id == caller.user_id).values(max_queued_jobs=100))
    document = spec(
        dataset={"source": f"dataset:{stored_dataset(database, caller.user_id)}"},
        teacher=[
            *({"source": f"model:{model_id}"} for model_id in models),
            *({"source": f"job:{submit(member)['id']}"} for _ in range(num_of_each)),
        ],
        depends_on=[needed, *(submit(member)["id"] for _ in range(num_of_each - 1))],
        labels={"team": "vision"},
    )
    settings = api.settings.model_copy(update={"preflight": True})
    with recorded_statements(database) as statements:
        job, is_new = submission.submit(database, settings, caller, document, idempotency_key=new_id("once"))
    assert (is_new, job.status) == (True, "checking")
    assert len(statements) <= MOST_STATEMENTS, statements


def test_a_submission_that_names_nothing_stored_takes_one_statement_once_the_pool_is_known_to_hold_such_jobs(
    api: Api, member: httpx.Client, database: Database
) -> None:
    caller = caller_of(database, submit(member)["id"])
    add_host(database, "cpu:1")
    for expected in (2, 1):
        with recorded_statements(database) as statements:
            submission.submit(database, api.settings, caller, spec(labels={"team": "vision"}))
        assert len(statements) == expected, statements


def test_what_a_pool_is_remembered_to_have_refuses_no_job(api: Api, member: httpx.Client, database: Database) -> None:
    caller = caller_of(database, submit(member)["id"])
    add_host(database, "cpu:1")
    submission.submit(database, api.settings, caller, spec())
    more = spec(resources={"cpu_slots": 3})
    with pytest.raises(InvalidSpec):
        submission.submit(database, api.settings, caller, more)
    add_host(database, "cpu:3")
    job, _ = submission.submit(database, api.settings, caller, more)
    assert job.spec["resources"]["cpu_slots"] == 3


def test_a_file_is_read_while_the_submission_holds_no_connection(
    api: Api, member: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = caller_of(database, submit(member)["id"])
    path = api.settings.file_roots[0] / "squares.npz"
    np.savez(path, image=np.zeros((60, 8, 8), np.uint8), label=np.arange(60) % 3)
    held: list[int] = []

    def inspect(*args: Any, **named: Any) -> DatasetInfo:
        held.append(database.engine.pool.checkedout())  # type: ignore[attr-defined]
        return inspect_source(*args, **named)

    monkeypatch.setattr(submission, "inspect_source", inspect)
    job, is_new = submission.submit(database, api.settings, caller, spec(dataset={"source": f"file:{path}"}))
    assert (is_new, held) == (True, [0])
    assert member.get(f"/v1/jobs/{job.id}").json()["spec"]["dataset"]["source"] == f"file:{path}"


def caller_of(database: Database, job_id: str) -> Caller:
    """The owner of a job."""
    with database.transaction() as session:
        owner_id = jobs.get(session, job_id).owner_id
    return Caller(user_id=owner_id, user_name="ada", key_id="key", role="member")


def finished_model(database: Database, job_id: str) -> str:
    """The student of a job, the only one of the queue, which succeeds."""
    fence = run_one(database)
    assert fence.job_id == job_id
    with database.transaction() as session:
        model = student(session, fence)
        model.classes = [str(digit) for digit in range(10)]
        jobs.succeed(session, fence, result={}, files=[], models=[model])
        return model.id


def stored_dataset(database: Database, owner_id: str) -> str:
    """An uploaded dataset that is as the digits are."""
    info = BUILTIN_DATASETS["digits"].info
    dataset = Dataset(
        id=new_id("ds"),
        owner_id=owner_id,
        name="digits",
        task=info.task,
        filename="digits.npz",
        path="datasets/digits.npz",
        sha256=new_id("sha"),
        bytes=1,
        info=info.model_dump(mode="json"),
    )
    with database.transaction() as session:
        session.add(dataset)
    return dataset.id
