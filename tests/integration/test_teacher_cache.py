"""Jobs that share what a teacher said: the second asks nothing; its student is, bit for bit, that of a job without a cache."""

from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from tests.integration.test_augmentation import LANGUAGES, losses
from tests.integration.test_methods import Recorder, student
from worker.job.attempt import run
from worker.protocol import Assignment, Finished, PhaseStarted, Progress, StopRequest

DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 4}, "training": {"max_steps": 3}},
    "student": {"architecture": {"name": "small-cnn", "width": 2}},
    "method": {"name": "fitnet"},
    "training": {"max_steps": 12, "batch_size": 128},
}
PLAIN_TEXTS = LANGUAGES | {"training": {"max_steps": 3}}
VIEWS = DIGITS | {"training": {"max_steps": 25, "batch_size": 128, "augment": ["crop", "mixup"], "views": 2}}


def train(document: dict[str, Any], folder: Path, *, cache: Path | None, stop_at: int | None = None) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder(stop_at=stop_at)
    spec = parse_spec(document).model_dump(mode="json")
    run(Assignment(job_id="job_test", spec=spec, folder=folder, cache=cache, num_threads=1), recorder)
    return recorder


def told(recorder: Recorder) -> list[str]:
    """What was announced of asking the teacher."""
    return [event.message for event in recorder.events if isinstance(event, PhaseStarted) and event.phase == "cache"]


def asked(recorder: Recorder) -> int:
    """About how many batches the teacher was asked."""
    return len([event for event in recorder.events if isinstance(event, Progress) and event.phase == "cache"])


@pytest.mark.parametrize(
    ("document", "num_entries"),
    [
        pytest.param(DIGITS, 1, id="inner layers"),
        pytest.param(PLAIN_TEXTS, 1, id="texts of several targets"),
        pytest.param(VIEWS, 2, id="two views"),
    ],
)
def test_a_second_job_asks_nothing_and_learns_the_same(tmp_path: Path, document: dict[str, Any], num_entries: int) -> None:
    cache = tmp_path / "cache"
    alone, first, second = (
        train(document, tmp_path / name, cache=at) for name, at in (("alone", None), ("first", cache), ("second", cache))
    )
    assert all(isinstance(each.events[-1], Finished) for each in (alone, first, second))
    assert asked(alone) == asked(first) > 0
    assert not any("from the cache" in message for message in told(alone) + told(first))
    assert asked(second) == 0
    assert all(message.startswith("Reading ") and message.endswith(" from the cache") for message in told(second))
    assert len(told(second)) == num_entries == len(list(cache.rglob("outputs.json")))
    assert losses(alone.events) == losses(first.events) == losses(second.events)
    assert student(tmp_path / "alone") == student(tmp_path / "first") == student(tmp_path / "second")


def test_another_student_of_the_same_teacher_asks_nothing_and_another_teacher_is_asked(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train(DIGITS, tmp_path / "first", cache=cache)
    wider = DIGITS | {"student": {"architecture": {"name": "small-cnn", "width": 3}}, "training": {"max_steps": 1}}
    assert asked(train(wider, tmp_path / "wider", cache=cache)) == 0
    taught = DIGITS["teacher"] | {"training": {"max_steps": 2}}
    assert asked(train(DIGITS | {"teacher": taught}, tmp_path / "other", cache=cache)) > 0


def test_what_is_damaged_is_asked_for_again_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    train(DIGITS, tmp_path / "first", cache=cache)
    (path,) = cache.rglob("0.rows")
    path.write_bytes(path.read_bytes()[:-8])
    second = train(DIGITS, tmp_path / "second", cache=cache)
    assert asked(second) > 0
    assert "cannot be used and are computed again" in caplog.text
    assert student(tmp_path / "first") == student(tmp_path / "second")
    assert asked(train(DIGITS, tmp_path / "third", cache=cache)) == 0


def test_a_job_stopped_while_it_asks_leaves_nothing_half_done(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    class AtOnce(Recorder):
        def stop_request(self) -> StopRequest | None:
            return StopRequest("drain") if told(self) else None

    (tmp_path / "job").mkdir()
    spec = parse_spec(DIGITS).model_dump(mode="json")
    run(Assignment(job_id="job_test", spec=spec, folder=tmp_path / "job", cache=cache, num_threads=1), AtOnce())
    assert not [path for path in cache.rglob("*") if path.is_file()]
    resumed = train(DIGITS, tmp_path / "job", cache=cache)
    assert isinstance(resumed.events[-1], Finished)
    assert asked(resumed) > 0
