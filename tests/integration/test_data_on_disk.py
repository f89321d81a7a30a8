"""Samples that stay on disk teach the very student that samples in memory teach, bit for bit; what is chosen is told."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.on_disk import ENCODER, JOBS, SOURCE, job, report_of, shards_of
from tests.integration.test_embeddings import save_encoder
from tests.integration.test_methods import Recorder, student
from worker.job.attempt import run
from worker.preflight import check
from worker.preflight.preview import preview
from worker.protocol import Assignment, Checked, Failed, Finished, Noted, Previewed, Stopped, Warned


def train(document: dict[str, Any], shards: Path, folder: Path, *, stop_at: int | None = None, num_loaders: int = 0) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder(stop_at=stop_at)
    inputs = {SOURCE: shards}
    if document["teacher"].get("source") == ENCODER:
        inputs[ENCODER] = save_encoder(folder.parent / "encoder")
    run(Assignment(job_id="job", spec=document, folder=folder, num_threads=1, inputs=inputs, num_loaders=0), recorder)
    return recorder


@pytest.mark.parametrize("kind", JOBS)
def test_the_student_is_the_same_from_memory_and_from_shards(kind: str, tmp_path: Path) -> None:
    shards = shards_of(kind, tmp_path)
    in_memory = train(job(kind, read="memory"), shards, tmp_path / "memory")
    assert isinstance(in_memory.events[-1], Finished), in_memory.events[-1]
    stopped = train(job(kind, read="shards"), shards, tmp_path / "shards-job", stop_at=3)
    assert isinstance(stopped.events[-1], Stopped), stopped.events[-1]
    resumed = train(job(kind, read="shards"), shards, tmp_path / "shards-job")
    assert isinstance(resumed.events[-1], Finished), resumed.events[-1]

    assert student(tmp_path / "shards-job") == student(tmp_path / "memory")
    told = {name: report_of(tmp_path / name) for name in ("memory", "shards-job")}
    assert without_times(told["memory"]["student"]) == without_times(told["shards-job"]["student"])
    for name, recorder in (("memory", in_memory), ("shards-job", stopped), ("shards-job", resumed)):
        assert [each for each in recorder.events if isinstance(each, Noted)] == [
            Noted("data_read", f"The data are read {told[name]['data']['read']}.")
        ]
    assert told["memory"]["data"]["read"].startswith("into memory at once")
    assert told["shards-job"]["data"]["read"].startswith("from shards as they are needed")
    warned = [[each for each in recorder.events if isinstance(each, Warned)] for recorder in (in_memory, stopped)]
    assert [each for each in warned[1] if each not in warned[0]] == []


def test_a_teachers_outputs_of_words_that_do_not_fit_into_memory_stay_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of("words", tmp_path)
    monkeypatch.setattr("worker.job.teacher_outputs.PRECOMPUTE_BYTES", 4 * 63 * 3)  # of a class each row, not each word
    for read in ("memory", "shards"):
        recorder = train(job("words", read=read), shards, tmp_path / read)
        assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
    assert student(tmp_path / "shards") == student(tmp_path / "memory")
    assert list((tmp_path / "shards" / "teacher_outputs").iterdir())
    assert not (tmp_path / "memory" / "teacher_outputs").exists()


def without_times(card: dict[str, Any]) -> dict[str, Any]:
    timed = [name for name in card if "latency" in name]
    return card | dict.fromkeys([*timed, "training", "speed"])


def test_what_does_not_fit_into_memory_is_read_from_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = shards_of("arrays", tmp_path)
    for free_bytes, source in ((10 * 90 * 144, "into memory"), (3 * 90 * 144, "from shards")):
        monkeypatch.setattr("worker.data.disk.read_choice.free_host_bytes", lambda free_bytes=free_bytes: free_bytes)
        folder = tmp_path / source
        recorder = train(job("arrays"), shards, folder)
        assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
        assert report_of(folder)["data"]["read"].startswith(source)


def test_shards_that_are_asked_for_and_are_none_are_refused(tmp_path: Path) -> None:
    shards = shards_of("arrays", tmp_path)
    failed = train(job("arrays", read="shards"), shards.parent / "set.npz", tmp_path / "job").events[-1]

    assert isinstance(failed, Failed)
    assert failed.code == "invalid_data"
    assert "dataset.read is shards, and the data are one file" in failed.message


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["words", "chats", "isolated"])
def test_a_check_and_a_preview_read_from_shards_what_they_read_from_memory(kind: str, tmp_path: Path) -> None:
    shards, found = shards_of(kind, tmp_path), []
    for read in ("memory", "shards"):
        recorder = Recorder()
        assignment = Assignment(
            job_id="job", spec=job(kind, read=read), folder=tmp_path, num_threads=1, inputs={SOURCE: shards}, num_loaders=0
        )
        preview(assignment, recorder)
        check(assignment, recorder)
        previewed, checked = (each for each in recorder.events if isinstance(each, Previewed | Checked))
        assert isinstance(previewed, Previewed)
        assert isinstance(checked, Checked)
        found.append((previewed.preview, checked.estimate["warnings"]))
    assert found[0] == found[1]
