"""Large splits are read beside the training of the teacher, and end it where a text cannot be read."""

from pathlib import Path

import pytest

from tests.integration.test_reading import EMPTY, classification, classified, write
from tests.integration.test_texts import BERT, BPE, network, report, train
from worker.protocol import Failed, Finished, PhaseStarted


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.job.reading.AT_ONCE_CHARACTERS", 10)
    monkeypatch.setattr("worker.job.reading.SAMPLE_CHARACTERS", 40)


def test_a_text_outside_the_sample_ends_the_teachers_training(tmp_path: Path) -> None:
    teacher = {"architecture": network("bert", BERT), "tokenizer": BPE, "training": {"max_steps": 100_000}}
    path = write(tmp_path / "texts.jsonl", classified(train=1))
    events = train(classification(path, teacher=teacher), tmp_path / "job").events
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.message == (
        f"train split, row 1 (line 2): the text {EMPTY!r} holds no token: fill it, or remove the row (as the student reads it)"
    )
    assert [event.phase for event in events if isinstance(event, PhaseStarted)] == ["teacher"]


def test_a_text_of_the_sample_is_told_before_it(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.jsonl", classified(train=0))
    events = train(classification(path), tmp_path / "job").events
    assert isinstance(events[-1], Failed)
    assert events[-1].message.startswith("train split, row 0 (line 1): the text ")
    assert not any(isinstance(event, PhaseStarted) for event in events)


def test_the_student_and_the_warnings_are_the_same_as_of_a_small_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = classified()
    rows[31]["text"] = "red " * 30
    document = classification(write(tmp_path / "texts.jsonl", rows))
    found = {}
    for name in ("large", "small"):
        assert isinstance(train(document, tmp_path / name).events[-1], Finished)
        warnings = {each["code"]: each["message"] for each in report(tmp_path / name)["warnings"]}
        found[name] = warnings["texts_cut"], (tmp_path / name / "result/student/model.safetensors").read_bytes()
        monkeypatch.undo()
    assert found["large"] == found["small"]
