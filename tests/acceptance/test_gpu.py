"""A worker with a GPU, in a stack of its own: what its jobs hold, who gives way to whom, what it could never hold."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from service.client import ApiError, Client, Job
from service.embedded.stack import stack
from tests.conftest import own_folder
from tests.faults.waiting import until

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 16}, "training": {"epochs": 3}},
    "student": {"architecture": {"name": "resnet20"}},
    "resources": {"gpus": 1},
}
LONG = DIGITS | {"priority": "low", "training": {"max_steps": 8000, "batch_size": 64}}
SHORT = DIGITS | {"priority": "high", "training": {"epochs": 2}}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        own_folder() as folder,
        stack(folder, devices="cuda:0,cpu:1", say=lambda text: None) as running,
        Client(running.connection.url, running.connection.api_key) as client,
    ):
        yield client


def is_training(job: Job) -> bool:
    return job.progress is not None and job.progress.phase == "student" and (job.progress.step or 0) > 100


def test_a_job_of_high_priority_gets_the_gpu_of_a_low_one_which_goes_on_afterwards(client: Client) -> None:
    low = client.submit(LONG)
    assert any(is_training(job) for job in client.watch(low.id))
    assert client.job(low.id).devices == ["cuda:0"]

    high = client.submit(SHORT)
    stopped = next(job for job in client.watch(low.id) if job.status == "queued")
    explanation = client.explain(low.id)
    assert client.wait(high.id, timeout_seconds=120).status == "succeeded"
    ended = client.wait(low.id, timeout_seconds=240)

    assert stopped.attempt == 1
    assert explanation.status == "queued"
    assert explanation.blocker is not None
    assert explanation.blocker.job_ids == [high.id], explanation
    assert (ended.status, ended.attempt) == ("succeeded", 2)
    assert "Resuming at step" in "\n".join(client.logs(low.id))
    assert 0.5 < ended.model_dump()["estimate"]["memory_gib"] < 8


@pytest.mark.parametrize(
    ("resources", "place"),
    [({"gpus": 2}, "/resources/gpus"), ({"gpus": 1, "min_gpu_memory_gib": 1000}, "/resources/min_gpu_memory_gib")],
)
def test_what_the_gpu_could_never_hold_is_refused_at_once(client: Client, resources: dict[str, Any], place: str) -> None:
    until(client.workers, "no worker has come", timeout_seconds=120)
    with pytest.raises(ApiError) as refused:
        client.submit(DIGITS | {"resources": resources})
    assert place in str(refused.value)
