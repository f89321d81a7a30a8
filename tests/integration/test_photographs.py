"""Jobs on photographs of many sizes: fitted to one, each network reading its own size of the same view; resumed exactly."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from tests.integration.test_methods import STOP_AT, student, train
from tests.photographs import CLASSES, photograph_archive
from tests.unit.formats.files import encoded, some_images
from tests.unit.test_archives import zipped
from tests.unit.worker.models.test_folder import uploaded
from worker.data.images.canvas import Canvas
from worker.job.job_data import load_job_data
from worker.protocol import RESULT_FOLDER, Failed, Finished, Stopped, Warned

GIVEN = "model:given"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photograph_archive(tmp_path_factory.mktemp("photographs") / "photographs.zip", count=24)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer for images of 8x8 pixels, to which its processor stretches any image."""
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}
    return uploaded(tmp_path_factory.mktemp("teacher"), **labels)


def document(archive: Path, **dataset: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "dataset": {"source": f"file:{archive}"} | dataset,
        "teacher": {"source": GIVEN, "accept_score": "any"},
        "student": {"architecture": {"name": "small-cnn", "width": 2}},
        "training": {
            "max_steps": 12,
            "batch_size": 8,
            "augment": ["random-resized-crop", "flip", "trivial-augment", {"name": "mixup"}],
        },
    }


def run(archive: Path, teacher: Path, folder: Path, spec: dict[str, Any], **options: Any) -> list[Any]:
    files = {f"file:{archive}": archive, GIVEN: teacher}
    return train(parse_spec(spec).model_dump(mode="json"), folder, inputs=files, **options).events


def test_student_and_teacher_read_their_own_sizes_of_windows_and_a_resumed_job_is_the_same(
    tmp_path: Path, archive: Path, teacher: Path
) -> None:
    spec = document(archive, image={"size": 20})
    whole = run(archive, teacher, tmp_path / "whole", spec)
    assert isinstance(whole[-1], Finished), whole[-1]
    warnings = {event.code: event.message for event in whole if isinstance(event, Warned)}
    assert "are resized (bilinear) to 20x20 pixels, dataset.image.size; their middle is cut out" in warnings["images_fitted"]
    assert {"first_frame", "sixteen_bit", "mixed_modes"} <= warnings.keys()
    result = tmp_path / "whole" / RESULT_FOLDER / "student"
    assert json.loads((result / "preprocessor_config.json").read_text())["crop_size"] == {"height": 20, "width": 20}
    told = json.loads((result.parent / "report.json").read_text())["data"]["image_fit"]
    assert told == {"size": [20, 20], "fit": "crop", "interpolation": "bilinear"}
    assert "ImageOps.fit(image, (20, 20), Image.Resampling.BILINEAR)" in (result.parent / "README.md").read_text()

    assert run(archive, teacher, tmp_path / "stopped", spec, stop_at=STOP_AT)[-1] == Stopped("drain")
    assert isinstance(run(archive, teacher, tmp_path / "stopped", spec)[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_without_a_size_it_is_that_of_the_teachers_processor(tmp_path: Path, archive: Path, teacher: Path) -> None:
    files = {f"file:{archive}": archive, GIVEN: teacher}
    data = load_job_data(parse_spec(document(archive)), files)
    assert data.splits["train"].inputs.shape[1:] == (3, 8, 8)
    assert data.canvas == Canvas(8, 8, 3, "stretch", "bilinear")
    asked = load_job_data(parse_spec(document(archive, image={"fit": "pad", "interpolation": "bicubic"})), files)
    assert asked.canvas == Canvas(8, 8, 3, "pad", "bicubic")
    (message,) = (warning.message for warning in data.warnings if warning.code == "images_fitted")
    assert "to 8x8 pixels, the size that the image processor of the teacher reads; their proportions change" in message


def test_without_a_size_and_without_a_given_network_the_job_is_refused_at_its_place(tmp_path: Path, archive: Path) -> None:
    spec = document(archive) | {"teacher": {"architecture": {"name": "small-cnn", "width": 4}, "training": {"max_steps": 2}}}
    last = run(archive, archive, tmp_path / "job", spec)[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/dataset/image"})
    assert "name the size that all are fitted to, for instance image: {size: 21}" in last.message


def test_a_broken_photograph_is_refused_or_left_out_and_counted(tmp_path: Path, teacher: Path) -> None:
    archive = photograph_archive(tmp_path / "a.zip", count=10, more=[("flower/broken.jpg", b"\xff\xd8\xff\xe0 cut off")])
    spec = document(archive, image={"size": 16})
    refused = run(archive, teacher, tmp_path / "refused", spec)[-1]
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_data"
    assert "'flower/broken.jpg' is" in refused.message
    spec["dataset"]["skip_broken"] = True
    events = run(archive, teacher, tmp_path / "skipped", spec)
    assert isinstance(events[-1], Finished), events[-1]
    assert [event.message for event in events if isinstance(event, Warned) and event.code == "rows_skipped"]
    report = json.loads((tmp_path / "skipped" / RESULT_FOLDER / "report.json").read_text())
    assert any("1 rows are left out" in json.dumps(each) for each in report["warnings"])


def test_transfer_rows_of_one_size_are_fitted_as_the_photographs_are(tmp_path: Path, archive: Path, teacher: Path) -> None:
    more = tmp_path / "more.zip"
    more.write_bytes(zipped([(f"{number}.png", encoded(some_images(9, 12, 3, seed=number))) for number in range(5)]))
    spec = parse_spec(document(archive, transfer=f"file:{more}"))
    data = load_job_data(spec, {f"file:{archive}": archive, f"file:{more}": more, GIVEN: teacher})
    train = data.splits["train"]
    assert train.whole is not None
    assert len(train.whole) == len(train.inputs) == len(train)
    assert train.transferred.inputs.shape == (5, 3, 8, 8)
    assert train.whole[-1].shape == (9, 12, 3)
