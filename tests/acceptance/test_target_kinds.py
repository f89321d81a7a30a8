"""Weighted rows, lists of classes and probabilities, uploaded over HTTP: each is trained on, and reported as what it is."""

from pathlib import Path
from typing import Any

import pytest

from service.client import ApiError, Client
from tests.integration.test_target_kinds import write_digits

CNN: dict[str, Any] = {"architecture": {"name": "small-cnn", "width": 8}}
TRAINING = {"epochs": 6, "batch_size": 50}


def test_every_kind_of_target_of_one_file_is_uploaded_and_trained_on(client: Client, tmp_path: Path) -> None:
    dataset = client.upload_dataset(
        write_digits(tmp_path / "digits.parquet"),
        name="digits and what they are",
        task="image-classification",
        target_column=["label", "traits", "votes"],
        weight_column="trust",
    )
    kinds = {name: column["kind"] for name, column in dataset.model_dump()["columns"].items()}
    assert kinds == {
        "image": "image",
        "label": "label",
        "trust": "weight",
        "traits": "labels",
        "votes": "probabilities",
        "split": "other",
    }
    (first, *_) = client.dataset(dataset.id).model_dump()["samples"]
    assert (first["targets"]["traits"], first["weight"]) == (["even", "round"], 2.0)

    def submitted(targets: list[str], **changes: Any) -> str:
        spec = {
            "task": "image-classification",
            "dataset": {"source": f"dataset:{dataset.id}", "targets": targets, "weight": "trust"},
            "teacher": CNN | {"training": TRAINING},
            "student": CNN,
            "training": TRAINING,
        }
        return client.submit(spec | changes).id

    with pytest.raises(ApiError, match="a row has one, and these rows have any number of them"):
        submitted(["traits"], method={"name": "dkd"})
    of_kind = {
        "label": submitted(["label"]),
        "traits": submitted(["traits"], training=TRAINING | {"class_weights": "balanced", "label_smoothing": 0.05}),
        "votes": submitted(["votes"], method={"name": "logit-standardization"}),
        "all": submitted(["label", "traits", "votes"], method={"name": "multi-task"}),
    }
    for job_id in of_kind.values():
        job = client.wait(job_id, timeout_seconds=300)
        assert job.status == "succeeded", job.error
    reports = {name: client.report(job_id) for name, job_id in of_kind.items()}
    assert reports["label"]["student"]["test_score"] > 0.6, "of the training rows' labels most are wrong, and weigh nothing"
    assert reports["traits"]["student"]["metrics"]["traits"]["mean_average_precision"] > 0.7
    assert reports["votes"]["student"]["test_accuracy"] > 0.5
    assert reports["all"]["data"]["label_kinds"] == {"traits": "labels", "votes": "probabilities"}
    assert reports["all"]["student"]["metrics"].keys() == {"label", "traits", "votes"}

    given = {"source": f"job:{of_kind['traits']}"}
    again = client.wait(submitted(["traits"], teacher=given), timeout_seconds=300)
    assert again.status == "succeeded", again.error
    with pytest.raises(ApiError, match="that network was trained on other classes"):
        submitted(["label"], teacher=given)
