"""Photographs of many sizes and kinds over HTTP, for a teacher and a student that read two sizes of them."""

import zipfile
from pathlib import Path

import pytest

from service.client import ApiError, Client
from tests.photographs import CLASSES, photograph_archive
from tests.unit.worker.models.test_folder import uploaded


def as_zip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def test_a_student_and_a_teacher_of_other_sizes_learn_from_photographs_of_any(client: Client, tmp_path: Path) -> None:
    broken = ("flower/broken.jpg", b"\xff\xd8\xff\xe0 cut off")
    archive = photograph_archive(tmp_path / "photographs.zip", count=24, more=[broken])
    with pytest.raises(ApiError, match=r"'flower/broken\.jpg' is"):
        client.upload_dataset(archive, name="photographs", task="image-classification")
    dataset = client.upload_dataset(archive, name="photographs", task="image-classification", skip_broken=True)
    assert dataset.splits == {"train": 48}
    with pytest.raises(ApiError, match=r"'flower/broken\.jpg' is"):
        client.upload_dataset(archive, name="photographs", task="image-classification")
    column = client.dataset(dataset.id).model_dump()["columns"]["image"]
    assert column["shape"] is None
    assert column["sizes"]["channels"] == 3
    assert {"first_frame", "sixteen_bit", "mixed_modes", "rows_skipped"} <= {warning["code"] for warning in dataset.warnings}

    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}
    model = client.upload_model(as_zip(tmp_path / "vit.zip", uploaded(tmp_path / "vit", **labels)), name="vit")
    training = {"max_steps": 8, "batch_size": 8, "augment": ["random-resized-crop", "rand-augment"]}
    spec = {
        "task": "image-classification",
        "dataset": {"source": f"dataset:{dataset.id}", "image": {"size": [20, 24]}},
        "teacher": {"source": f"model:{model.id}", "training": training},
        "student": {"architecture": {"name": "small-cnn", "width": 2}},
        "training": training,
    }
    job = client.wait(client.submit(spec).id, timeout_seconds=300)
    assert job.status == "succeeded", job.error
    assert any("resized (bilinear) to 20x24 pixels" in warning["message"] for warning in client.report(job.id)["warnings"])

    alone = spec | {
        "dataset": {"source": f"dataset:{dataset.id}"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 4}},
    }
    with pytest.raises(ApiError) as refused:
        client.submit(alone)
    assert [fault.pointer for fault in refused.value.faults] == ["/dataset/image"]
