"""Two people and one device, with all settings as they come: each job is checked before it waits."""

import threading
from contextlib import ExitStack, suppress
from itertools import islice
from typing import Any

from service.client import Client, Conflict
from service.embedded.stack import Stack

SMALL: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 2}, "training": {"max_steps": 2}},
    "student": {"architecture": {"name": "small-cnn", "width": 2}},
    "training": {"max_steps": 200},
    "evaluation": {"control": False},
}


def test_of_many_jobs_and_one_that_are_posted_at_the_same_moment_the_one_is_among_the_first_two(
    running_stack: Stack, client: Client
) -> None:
    with ExitStack() as parts:
        fay, gus = (
            parts.enter_context(Client(running_stack.connection.url, client.create_key(user=name, role="member").key))
            for name in ("fay", "gus")
        )
        many: list[str] = []
        barrier = threading.Barrier(2)

        def post_many() -> None:
            barrier.wait()
            many.extend(fay.submit(SMALL).id for _ in range(8))

        thread = threading.Thread(target=post_many)
        thread.start()
        barrier.wait()
        one = gus.submit(SMALL).id
        thread.join()
        ended = gus.wait(one, timeout_seconds=120)
        assert ended.status == "succeeded"
        assert ended.estimate is not None, "it was checked"
        started = [job for job in islice(client.jobs(), 50) if job.id in many and job.started_at is not None]
        for job_id in many:
            with suppress(Conflict):  # it has ended
                fay.cancel(job_id)
    assert ended.started_at is not None
    assert len([job for job in started if job.started_at is not None and job.started_at < ended.started_at]) <= 1
