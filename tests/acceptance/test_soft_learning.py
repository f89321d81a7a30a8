"""Soft learning over HTTP: a digit that the student never saw, and data without a single label.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531, section 3.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from service.client import Client, Job
from service.embedded.stack import Stack
from tests.conftest import own_folder
from tests.unit.formats.files import write_npz
from worker.tasks import load_network

MISSING = 3
TEST = slice(1260, None)
CNN = {"name": "small-cnn", "width": 32}
SMALL = {"name": "small-cnn", "width": 8}


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 8, 8) and labels (N,), in a random order that is always the same."""
    found = load_digits()
    order = np.random.RandomState(0).permutation(len(found.target))
    return found.images[order].astype(np.uint8), found.target[order].astype(np.int64)


def parts(*, without: int | None = None) -> dict[str, Any]:
    """Three splits of the digits; train and validation lack one digit."""
    images, labels = digits()
    arrays: dict[str, Any] = {}
    for name, part in (("train", slice(1080)), ("validation", slice(1080, 1260)), ("test", TEST)):
        kept = np.full(len(labels[part]), True) if name == "test" else labels[part] != (-1 if without is None else without)
        arrays |= {f"{name}_image": images[part][kept], f"{name}_label": labels[part][kept]}
    return arrays


def halves(num_rows: int) -> NDArray[np.uint8]:
    """Images (N, 8, 8) of the left half of one digit and the right half of another, neither of them a 3."""
    images = parts(without=MISSING)["train_image"]
    left, right = np.random.RandomState(0).randint(len(images), size=(2, num_rows))
    return np.concatenate([images[left][:, :, :4], images[right][:, :, 4:]], axis=2)


@dataclass(frozen=True)
class Done:
    """The jobs of this module by name, and a client."""

    client: Client
    jobs: dict[str, Job]
    folder: Path

    def report(self, name: str) -> dict[str, Any]:
        return self.client.report(self.jobs[name].id)

    def recall(self, name: str) -> float:
        """The share of the test split's missing digits that the job's student knows."""
        folder = self.folder / name
        self.client.download(self.jobs[name].id, folder, names=["student"])
        images, labels = digits()
        loaded = load_network(folder / "student")
        threes = torch.from_numpy(images[TEST][labels[TEST] == MISSING]).unsqueeze(1)
        outputs = loaded.network(loaded.preprocessing(loaded.preprocessing.prepare(threes)))
        return float((outputs.argmax(dim=1) == loaded.classes.index(str(MISSING))).double().mean())


@pytest.fixture(scope="module")
def done(running_stack: Stack) -> Any:
    """A job trains a teacher of all digits; others, which wait for it, learn from data without a 3 and without labels."""
    connection = running_stack.connection
    with own_folder() as folder, Client(connection.url, connection.api_key) as client:

        def upload(name: str, **arrays: Any) -> str:
            path = write_npz(folder / f"{name}.npz", **arrays)
            return f"dataset:{client.upload_dataset(path, name=name, task='image-classification').id}"

        def submit(dataset: dict[str, Any], **changes: Any) -> Job:
            spec = {"task": "image-classification", "dataset": dataset, "student": {"architecture": CNN}}
            return client.submit(spec | changes)

        no_three = upload("no three", **parts(without=MISSING))
        bare = upload("bare", image=digits()[0][:200])
        trained = {"architecture": CNN, "training": {"epochs": 2}}
        whole = submit(
            {"source": upload("all", **parts())}, teacher=trained, method={"terms": [{"name": "labels"}]}, training={"epochs": 12}
        )
        teacher = {"source": f"job:{whole.id}"}
        jobs = {
            "whole": whole,
            "taught": submit(
                {"source": no_three, "transfer": upload("halves", image=halves(1000))},
                teacher=teacher,
                method={"name": "soft-targets", "temperature": 20.0, "label_weight": 0.0},
                training={"epochs": 20},
                evaluation={"correct_bias": True},
            ),
            "labels": submit(
                {"source": no_three},
                teacher=teacher,
                student={"architecture": SMALL},
                method={"terms": [{"name": "labels"}]},
                training={"epochs": 5},
            ),
            "unlabelled": submit(
                {"source": bare, "transfer": no_three, "transfer_fraction": 0.25},
                teacher=teacher,
                student={"architecture": SMALL},
                training={"epochs": 3},
                evaluation={"control": True},
            ),
        }
        jobs = {name: client.wait(job.id, timeout_seconds=240) for name, job in jobs.items()}
        assert all(job.status == "succeeded" for job in jobs.values()), [job.error for job in jobs.values()]
        yield Done(client, jobs, folder)


def test_a_student_knows_a_digit_that_only_its_teacher_saw(done: Done) -> None:
    taught, by_labels = done.recall("taught"), done.recall("labels")
    told = done.report("taught")

    assert taught >= 0.9
    assert by_labels == 0
    assert told["student"]["test_accuracy"] > done.report("labels")["student"]["test_accuracy"]
    assert told["data"]["classes"] == [str(digit) for digit in range(10)]
    assert (told["bias"]["rows"], told["bias"]["are_transfer"]) == (1000, True)
    assert told["bias"]["largest_difference_after"] < 1e-5 < told["bias"]["largest_difference_before"]
    assert "class_without_rows" in {warning["code"] for warning in told["warnings"]}, "validation says nothing of the 3"


def test_an_upload_without_labels_becomes_a_student(done: Done) -> None:
    result, told = done.jobs["unlabelled"].result, done.report("unlabelled")
    assert result is not None
    assert (result["chosen_by"], result["student"]["test_score"], result["control"]) == ("agreement", None, None)
    assert result["agreement"] > 0.5
    assert {warning["code"] for warning in result["warnings"]} >= {"no_control", "chosen_by_agreement", "no_score"}
    assert told["data"]["rows"]["transfer"] == done.report("taught")["data"]["rows"]["train"]
    card = done.client.report_card(done.jobs["unlabelled"].id)
    assert card.student.test_score is None
    assert card.chosen_by == "agreement"
