"""Numbers as targets, from a spec to a student: of any mean and scale they are learned alike, and come back in their units."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.spec import parse_spec
from tests.integration.test_methods import Recorder
from worker.data.preprocessing import Preprocessing
from worker.job.attempt import run
from worker.models import load_network
from worker.protocol import RESULT_FOLDER, Assignment, Failed, Finished

Numbers = dict[str, tuple[float, float]]
"""The mean and the deviation of each number, by target."""
PIXELS = 8
YEARS: Numbers = {"year": (1997.0, 5.6)}


def signal(count: int) -> Any:
    """(count, 2), each of mean 0 and deviation 1."""
    values = np.random.default_rng(0).normal(size=(count, 2))
    return (values - values.mean(axis=0)) / values.std(axis=0)


def write_images(path: Path, numbers: Numbers, *, count: int = 200, kind: bool = False) -> Path:
    """Images whose upper and lower halves are as bright as their first and second number say; their kind is the brighter half."""
    values = signal(count)
    images = np.random.default_rng(1).normal(size=(count, 1, PIXELS, PIXELS)) * 0.1
    images[:, 0, : PIXELS // 2] += values[:, :1, None]
    images[:, 0, PIXELS // 2 :] += values[:, 1:, None]
    arrays: dict[str, Any] = {"image": images.astype(np.float32)}
    for place, (name, (mean, deviation)) in enumerate(numbers.items()):
        arrays[name] = mean + deviation * values[:, place]
    if kind:
        arrays["kind"] = (values[:, 0] > values[:, 1]).astype(np.int64)
    parts = {"train": slice(0, count * 4 // 5), "test": slice(count * 4 // 5, count)}
    np.savez(path, **{f"{part}_{name}": each[rows] for part, rows in parts.items() for name, each in arrays.items()})
    return path


def spec(source: Path, targets: list[str], **changes: Any) -> dict[str, Any]:
    network = {"architecture": {"name": "small-cnn", "width": 4}}
    training = {"epochs": 12, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    document = {
        "task": "image-classification",
        "dataset": {"source": f"file:{source}", "targets": targets},
        "teacher": network | {"training": training},
        "student": network,
        "method": {"name": "soft-targets"},
        "evaluation": {"control": False},
        "training": training,
    }
    return parse_spec(document | changes).model_dump(mode="json")


def run_job(document: dict[str, Any], folder: Path, *, teacher: Path | None = None) -> list[Any]:
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    inputs = {source: Path(source.removeprefix("file:"))} | ({"model:given": teacher} if teacher else {})
    recorder = Recorder()
    run(Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1), recorder)
    return recorder.events


def finished(document: dict[str, Any], folder: Path, *, teacher: Path | None = None) -> dict[str, Any]:
    """The report of a job that succeeds."""
    events = run_job(document, folder, teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    report: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text(encoding="utf-8"))
    return report


@torch.no_grad()
def predicted(folder: Path, inputs: Tensor) -> Tensor:
    """What a network of a result folder gives for stored inputs."""
    loaded = load_network(folder)
    reads: Preprocessing = loaded.preprocessing
    outputs: Tensor = loaded.network(reads(reads.prepare(inputs)))
    return outputs


@pytest.mark.parametrize(
    "numbers", [{"year": (0.0, 1.0)}, YEARS, {"price": (1e6, 1e5)}, {"length": (3e-4, 1e-4)}, {"offset": (-1e7, 500.0)}], ids=str
)
def test_a_number_of_any_mean_and_scale_is_learned_and_comes_back_in_its_own_unit(tmp_path: Path, numbers: Numbers) -> None:
    source, ((name, (_, deviation)),) = write_images(tmp_path / "images.npz", numbers), numbers.items()
    report = finished(spec(source, [name]), tmp_path / "job")
    assert report["teacher"]["test_score"] > 0.95
    assert report["student"]["test_score"] > 0.95

    arrays = np.load(source)
    for role in ("teacher", "student"):
        outputs = predicted(tmp_path / "job" / RESULT_FOLDER / role, torch.from_numpy(arrays["test_image"]))
        errors = (outputs[:, 0].double() - torch.from_numpy(arrays[f"test_{name}"])).abs()
        assert float(errors.mean()) == pytest.approx(report[role]["metrics"][name]["mae"], rel=0.01)
        assert float(errors.mean()) < deviation / 4
    labels = json.loads((tmp_path / "job" / RESULT_FOLDER / "student" / "labels.json").read_text(encoding="utf-8"))
    assert labels == {name: None}


def test_numbers_that_32_bit_floats_hardly_tell_apart_are_refused_and_learned_once_they_are_moved(tmp_path: Path) -> None:
    far = run_job(spec(write_images(tmp_path / "a.npz", {"stamp": (1.7e9, 60.0)}), ["stamp"]), tmp_path / "far")
    assert isinstance(far[-1], Failed)
    assert "'stamp' are around 1699999999 with a deviation of 60" in far[-1].message
    moved = 1.7e9 - float(far[-1].message.split("subtract ")[1].split()[0])
    near = finished(spec(write_images(tmp_path / "b.npz", {"stamp": (moved, 60.0)}), ["stamp"]), tmp_path / "near")
    assert near["student"]["test_score"] > 0.95
