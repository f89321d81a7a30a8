"""Jobs with augmentation: a student of each modality, the same one again after an interruption, and what is refused early."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from tests.integration.test_methods import STOP_AT, student, train
from worker.protocol import RESULT_FOLDER, Failed, Finished, MetricPoints, PhaseStarted, Stopped

DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {
        "architecture": {"name": "small-cnn", "width": 4},
        "training": {"max_steps": 3, "augment": ["crop", "cutout"]},
    },
    "student": {"architecture": {"name": "small-cnn", "width": 2}},
    "evaluation": {"control": True},
    # Eleven steps are an epoch: the views of two epochs are seen.
    "training": {"max_steps": 14, "batch_size": 128, "augment": [{"name": "crop", "padding": 1}, "affine", "mixup"]},
}
BERT = {
    "name": "transformers",
    "model_type": "bert",
    "config": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8},
}
LANGUAGES: dict[str, Any] = {
    "task": "text-classification",
    "dataset": {"source": "builtin:languages", "targets": ["label", "kind"]},
    "teacher": {
        "architecture": BERT,
        "tokenizer": {"train": "wordpiece", "vocab_size": 300, "max_length": 16},
        "training": {"max_steps": 1},
    },
    "student": {"architecture": BERT},
    "method": {"name": "multi-task"},
    "training": {"max_steps": 8, "augment": ["token-dropout"]},
}


def normalised(document: dict[str, Any]) -> dict[str, Any]:
    return parse_spec(document).model_dump(mode="json")


def losses(events: list[Any], role: str = "student") -> list[float]:
    return [
        value for event in events if isinstance(event, MetricPoints) for _, value in event.points.get(f"{role}/train_loss", [])
    ]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(DIGITS, id="images, two labels"),
        pytest.param(DIGITS | {"method": {"name": "fitnet"}}, id="inner layers"),
        pytest.param(DIGITS | {"method": {"name": "distillation-network"}}, id="read by the student"),
        pytest.param(DIGITS | {"method": {"name": "born-again", "generations": 2}}, id="a chain"),
        pytest.param(LANGUAGES, id="texts"),
    ],
)
def test_a_job_stopped_among_its_views_ends_with_the_same_student(tmp_path: Path, document: dict[str, Any]) -> None:
    whole = train(normalised(document), tmp_path / "whole")
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    assert not [event for event in whole.events if isinstance(event, PhaseStarted) and event.phase == "cache"]
    told = json.loads((tmp_path / "whole" / RESULT_FOLDER / "spec.json").read_text())["training"]["augment"]
    assert [each["name"] for each in told] == [
        each if isinstance(each, str) else each["name"] for each in document["training"]["augment"]
    ]

    stopped = train(normalised(document), tmp_path / "stopped", stop_at=STOP_AT)
    assert stopped.events[-1] == Stopped("drain")
    assert isinstance(train(normalised(document), tmp_path / "stopped").events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_augmentation_changes_what_is_trained_on_and_nothing_without_it(tmp_path: Path) -> None:
    plain, empty, cropped = (
        losses(train(normalised(DIGITS | {"training": {"max_steps": 3, **augment}}), tmp_path / name).events)
        for name, augment in (("plain", {}), ("empty", {"augment": []}), ("cropped", {"augment": ["crop"]}))
    )
    assert plain == empty
    assert plain[0] != cropped[0]


def test_augmentation_that_the_networks_cannot_share_fails_the_job_before_the_teacher_is_trained(tmp_path: Path) -> None:
    document = LANGUAGES | {
        "student": {"architecture": BERT, "tokenizer": {"train": "wordpiece", "vocab_size": 200, "max_length": 16}}
    }
    *_, last = train(normalised(document), tmp_path / "job").events
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/training/augment"})
    assert "the teacher reads other tokens" in last.message
