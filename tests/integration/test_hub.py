"""Teachers of the Hugging Face Hub: from a cache as the library lays it out, and what is told where there is none."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from tests.access import fetched
from tests.integration.test_chain import StopIn, report, train
from tests.integration.test_teachers import CNN, SHORT, spec
from tests.unit.formats.files import some_images, write_npz
from worker.job.attempt import run
from worker.job.error_mapping import as_failure
from worker.protocol import RESULT_FOLDER, Assignment, Event, Failed, Finished, PhaseStarted, Stopped
from worker.sources.errors import SourceRefused
from worker.sources.hub import fetch_snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VIT = {
    "name": "transformers",
    "model_type": "vit",
    "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 4},
}


def lay_out(cache: Path, folder: Path, *, commit: str, branch: str = "main", name: str = "models--anna--digits") -> None:
    """Blobs, a snapshot of links to them, and the branch's commit."""
    repository = cache / name
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    for file in folder.iterdir():
        blob = repository / "blobs" / f"{commit}-{file.name}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    (snapshot / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / branch).write_text(commit)


def attempt(
    document: dict[str, Any],
    folder: Path,
    *,
    revisions: dict[str, str] | None = None,
    stop_in: str | None = None,
) -> tuple[list[Event], dict[str, str]]:
    """The events of an attempt with what a host has fetched for it, and the revisions that the host would note."""
    inputs = fetched(document, folder, revisions=revisions)
    recorder = StopIn(stop_in)
    folder.mkdir(exist_ok=True)
    run(Assignment("job_test", document, folder, inputs.paths, inputs.revisions, num_threads=1), recorder)
    return recorder.events, inputs.revisions


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A worker whose library looks into its cache alone."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_a_teacher_of_the_hub_teaches_at_the_commit_that_was_found(offline: Path, tmp_path: Path) -> None:
    train(spec({"architecture": VIT, "training": SHORT}), tmp_path / "made")
    lay_out(offline, tmp_path / "made" / RESULT_FOLDER / "teacher", commit=COMMIT)

    document = spec([{"source": "hub:anna/digits", "accept_score": "any"}, {"architecture": CNN, "training": SHORT}])
    stopped, noted = attempt(document, tmp_path / "job", stop_in="teacher-2")
    # The branch moves on; the job does not.
    lay_out(offline, tmp_path / "made" / RESULT_FOLDER / "teacher", commit=COMMIT[::-1])
    events, _ = attempt(document, tmp_path / "job", revisions=noted)

    assert not isinstance(stopped[-1], Failed)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")
    assert told["teachers"][0]["source"] == f"hub:anna/digits@{COMMIT}"
    assert told["teachers"][0]["test_accuracy"] == report(tmp_path / "made")["teacher"]["test_accuracy"]
    written = json.loads((tmp_path / "job" / RESULT_FOLDER / "spec.json").read_text())
    assert written["teacher"][0]["source"] == f"hub:anna/digits@{COMMIT}"
    assert parse_spec(written)


@pytest.mark.parametrize("branch", ["moved", "gone"])
def test_unlabelled_data_keep_the_classes_of_the_commit_that_was_found(branch: str, offline: Path, tmp_path: Path) -> None:
    train(spec({"architecture": VIT, "training": SHORT}), tmp_path / "made")
    given = tmp_path / "made" / RESULT_FOLDER / "teacher"
    lay_out(offline, given, commit=COMMIT)
    bare = write_npz(tmp_path / "bare.npz", image=some_images(60, 8, 8))
    document = spec({"source": "hub:anna/digits", "accept_score": "any"}, dataset={"source": f"file:{bare}"})

    stopped, noted = attempt(document, tmp_path / "job", stop_in="student")
    assert stopped[-1] == Stopped("drain")
    branches = offline / "models--anna--digits" / "refs"
    if branch == "moved":
        config = json.loads((given / "config.json").read_text())
        renamed = {str(index): f"digit {index}" for index in range(10)}
        changed = {"id2label": renamed, "label2id": {name: int(index) for index, name in renamed.items()}}
        (given / "config.json").write_text(json.dumps(config | changed))
        (given / "labels.json").write_text(json.dumps(list(renamed.values())))
        lay_out(offline, given, commit=COMMIT[::-1])
    else:
        (branches / "main").unlink()
    events, _ = attempt(document, tmp_path / "job", revisions=noted)

    assert isinstance(events[-1], Finished), events[-1]
    begun = [event.message for event in events if isinstance(event, PhaseStarted)]
    assert any(message.startswith("Resuming at step") for message in begun), begun
    told = report(tmp_path / "job")
    assert told["data"]["classes"] == [str(index) for index in range(10)]
    assert told["teacher"]["source"] == f"hub:anna/digits@{COMMIT}"


@pytest.mark.parametrize("source", ["hub:anna/nothing", "hub:anna/digits@v2"])
def test_what_an_offline_worker_does_not_have_is_told(offline: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    lay_out(offline, tmp_path / "empty", commit=COMMIT)
    with pytest.raises(SourceRefused, match=f"{source} cannot be fetched: the worker is offline") as refused:
        fetched(spec({"source": source}), tmp_path / "job")
    assert refused.value.pointer == "/teacher/source"


def test_what_this_host_cannot_do_is_nothing_of_the_hubs(offline: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lay_out(offline, tmp_path / "empty", commit=COMMIT)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="open files") as caught:
            fetch_snapshot("hub:anna/digits", tmp_path / "links")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert as_failure(caught.value).code == "artifacts_unavailable"


def test_a_repository_without_safetensors_is_told(offline: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lay_out(offline, tmp_path / "empty", commit=COMMIT)
    last = attempt(spec({"source": "hub:anna/digits"}), tmp_path / "job")[0][-1]
    assert isinstance(last, Failed)
    assert last.code == "input_unavailable"
    assert "model.safetensors is missing" in last.message or "config.json" in last.message


def test_a_hub_that_cannot_be_reached_is_told_and_tried_again(tmp_path: Path) -> None:
    """With the library's own environment, hence in a process of its own: nothing listens at the address."""
    script = (
        "from pathlib import Path; from worker.sources.errors import HubAway; from worker.sources.hub import fetch_snapshot\n"
        f"try: fetch_snapshot('hub:anna/digits', Path({str(tmp_path / 'links')!r}))\n"
        "except HubAway as away: print(away.message)"
    )
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hub:anna/digits cannot be fetched: the Hub cannot be reached")


@pytest.mark.parametrize(
    "source",
    ["hub:", "hub:a/b/c", "hub:../x", "hub:a/b@", "hub:a--b/c", "hub:a b/c", "hub:a/x@../../etc", f"hub:a/{'b' * 300}"],
)
def test_what_cannot_be_a_repository_is_refused_at_its_place(source: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec({"source": source})
    (fault,) = caught.value.faults
    assert fault.pointer == "/teacher/source"


@pytest.mark.parametrize("source", ["hub:gpt2", "hub:google/vit-base-patch16-224", "hub:a/b.c_d@refs/pr/1", f"hub:a/b@{COMMIT}"])
def test_what_may_be_a_repository_is_taken(source: str) -> None:
    taken: Any = spec({"source": source})["teacher"]["source"]
    assert taken == source
