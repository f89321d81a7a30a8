"""Transfer rows beside a training split with labels, and training splits without: from the spec to the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from service.errors import InvalidSpec
from service.spec import parse_spec
from tests.integration.test_chain import StopIn, metric_names, report
from tests.integration.test_methods import student
from tests.unit.formats.files import write_npz
from worker import standalone
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Event, Finished, Stopped

TEACHER: dict[str, Any] = {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 4}}


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 8, 8) and labels (N,)."""
    found = load_digits()
    return found.images.astype(np.uint8), found.target.astype(np.int64)


@pytest.fixture(scope="module")
def files(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """120 digits with labels, and 200 others without."""
    folder = tmp_path_factory.mktemp("files")
    images, labels = digits
    return {
        "file:main": write_npz(folder / "main.npz", image=images[:120], label=labels[:120]),
        "file:more": write_npz(folder / "more.npz", image=images[120:320]),
    }


def spec(**changes: Any) -> dict[str, Any]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "file:main", "transfer": "file:more", "transfer_fraction": 0.25},
        "teacher": TEACHER,
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"epochs": 2, "batch_size": 16, "checkpoint_steps": 3},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def train(document: dict[str, Any], folder: Path, inputs: dict[str, Path], *, stop_in: str | None = None) -> list[Event]:
    folder.mkdir(exist_ok=True)
    recorder = StopIn(stop_in)
    run(Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1), recorder)
    return recorder.events


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": {"epochs": 2, "batch_size": 16, "augment": ["crop", "mixup"], "views": 2}, "evaluation": {"control": True}},
        {"method": {"name": "deep-mutual"}, "teacher": {"architecture": {"name": "small-cnn", "width": 8}}},
    ],
    ids=["precomputed", "views and a control", "peers"],
)
def test_a_job_with_transfer_rows_resumes_exactly(changes: dict[str, Any], files: dict[str, Path], tmp_path: Path) -> None:
    document = spec(**changes)
    whole = train(document, tmp_path / "whole", files)
    assert isinstance(whole[-1], Finished), whole[-1]
    told = report(tmp_path / "whole")
    # 120 rows, of which 30 % are held out; 12 of them in each batch of 16.
    assert told["student"]["training"]["steps"] == 2 * 7
    assert told["data"]["rows"]["transfer"] == 200

    stopped = train(document, tmp_path / "stopped", files, stop_in="student")
    assert stopped[-1] == Stopped("drain")
    resumed = train(document, tmp_path / "stopped", files)
    assert isinstance(resumed[-1], Finished), resumed[-1]
    assert "student/train_loss" in metric_names(resumed)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    assert report(tmp_path / "stopped")["student"]["test_loss"] == told["student"]["test_loss"]


def test_a_job_without_the_service_reads_its_transfer_rows(files: dict[str, Path], tmp_path: Path) -> None:
    main, more = (f"file:{files[name]}" for name in ("file:main", "file:more"))
    document = spec(dataset={"source": main, "transfer": more}, training={"max_steps": 2})
    standalone.train(parse_spec(document), tmp_path / "out", lambda event: None)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["data"]["rows"]["transfer"] == 200
    assert not (tmp_path / "out" / "data").exists(), "shards are left"
    with pytest.raises(InvalidSpec) as refused:
        standalone.train(parse_spec(spec(dataset={"source": main, "transfer": f"{more}x"})), tmp_path / "no", lambda event: None)
    assert [fault.pointer for fault in refused.value.faults] == ["/dataset/transfer"]


def test_transfer_rows_change_the_student_and_not_its_teacher(files: dict[str, Path], tmp_path: Path) -> None:
    for name, dataset in (("with", {}), ("without", {"dataset": {"source": "file:main"}})):
        assert isinstance(train(spec(**dataset), tmp_path / name, files)[-1], Finished)
    reports = [report(tmp_path / name) for name in ("with", "without")]

    assert reports[0]["teacher"]["training"]["steps"] == reports[1]["teacher"]["training"]["steps"]
    assert student(tmp_path / "with") != student(tmp_path / "without")
    # Pixels are normalised by all images that the job trains on, so the teachers are alike, not the same.
    assert reports[0]["teacher"]["test_loss"] == pytest.approx(reports[1]["teacher"]["test_loss"], rel=0.2)
    assert torch.tensor(reports[0]["student"]["test_loss"]).isfinite()


@pytest.fixture(scope="module")
def teacher(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows ten digits, from a file as the others are: a builtin dataset says that its pixels end at 16."""
    folder = tmp_path_factory.mktemp("teacher")
    images, labels = digits
    document = spec(
        dataset={"source": "file:all"},
        teacher={"architecture": {"name": "small-cnn", "width": 16}, "training": {"epochs": 4}},
        training={"max_steps": 1},
    )
    inputs = {"file:all": write_npz(folder / "all.npz", image=images[320:], label=labels[320:])}
    assert isinstance(train(document, folder / "job", inputs)[-1], Finished)
    return folder / "job" / RESULT_FOLDER / "teacher"


UNLABELLED: dict[str, Any] = {"teacher": {"source": "model:digits"}, "training": {"epochs": 3, "batch_size": 16}}


def warned(told: dict[str, Any]) -> set[str]:
    return {warning["code"] for warning in told["warnings"]}


def test_images_without_any_label_teach_by_the_teacher_alone(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], teacher: Path, tmp_path: Path
) -> None:
    inputs = {"file:bare": write_npz(tmp_path / "bare.npz", image=digits[0][:300]), "model:digits": teacher}
    document = spec(
        dataset={"source": "file:bare"},
        **UNLABELLED | {"training": {"epochs": 10, "batch_size": 16}},
        evaluation={"control": True, "seeds": [0]},
        exports=["onnx"],
    )
    events = train(document, tmp_path / "job", inputs)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")

    assert told["data"]["classes"] == [str(digit) for digit in range(10)]
    assert warned(told) >= {"no_control", "chosen_by_agreement", "no_score"}
    assert (told["chosen_by"], told["control"], told["gain"], told["seeds"]) == ("agreement", None, None, None)
    assert told["student"]["test_score"] is told["student"]["validation_loss"] is told["exports"][0]["test_score"] is None
    assert told["agreement"] > 0.5
    assert 0 < told["validation_agreement"] <= 1
    assert "student/validation_agreement" in metric_names(events)
    assert (events[-1].result["chosen_by"], events[-1].result["student"]["test_score"]) == ("agreement", None)
    folder = tmp_path / "job" / RESULT_FOLDER
    for text in ((folder / "report.html").read_text(), (folder / "README.md").read_text().split("## Spec")[0]):
        assert "None" not in text
        assert "agree" in text
    assert '"control": true' in (folder / "README.md").read_text()
    document["exports"] = []
    stopped = train(document, tmp_path / "stopped", inputs, stop_in="student")
    assert stopped[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped", inputs)[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "job")


def test_rows_without_a_label_count_where_the_teacher_teaches(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], teacher: Path, tmp_path: Path
) -> None:
    images, labels = digits
    some = np.where(np.arange(300) % 3 == 0, labels[:300], -1)
    some[np.flatnonzero(some == 8)[2:]] = -1  # too few of one class for three parts
    inputs = {"file:some": write_npz(tmp_path / "some.npz", image=images[:300], label=some), "model:digits": teacher}
    job = spec(dataset={"source": "file:some"}, **UNLABELLED, evaluation={"control": True})
    assert isinstance(train(job, tmp_path / "job", inputs)[-1], Finished)
    told = report(tmp_path / "job")
    assert told["chosen_by"] == "score"
    assert not warned(told) & {"no_control", "chosen_by_agreement", "no_score"}
    assert told["gain"] == told["student"]["test_score"] - told["control"]["test_score"]


def test_a_training_split_without_labels_is_passed_over_as_often_as_its_transfer_rows(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], files: dict[str, Path], teacher: Path, tmp_path: Path
) -> None:
    images, labels = digits
    arrays: dict[str, Any] = {
        "train_image": images[:20],
        "train_label": np.full(20, -1),
        "test_image": images[20:60],
        "test_label": labels[20:60],
    }
    inputs = files | {
        "file:few": write_npz(tmp_path / "few.npz", **arrays, validation_image=images[60:80], validation_label=labels[60:80]),
        "model:digits": teacher,
    }
    job = spec(dataset={"source": "file:few", "transfer": "file:more"}, **UNLABELLED)
    assert isinstance(train(job, tmp_path / "job", inputs)[-1], Finished)
    # 200 transfer rows, of which eight are in each batch of 16.
    assert report(tmp_path / "job")["student"]["training"]["steps"] == 3 * 25
