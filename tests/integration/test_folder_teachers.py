"""Teachers in a folder of this host: ``file:FOLDER``, with and without the service."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from service.cli import main
from service.cli.training import _network_cache
from service.errors import InvalidSpec
from service.spec import parse_spec
from service.store import Store
from tests.access import DirectAccess, fetched
from tests.integration.test_chain import StopIn, report, train
from tests.integration.test_given_students import language_spec
from tests.integration.test_teachers import CNN, SHORT, spec
from tests.unit.worker.models.test_gguf_folder import network as tiny_network
from tests.unit.worker.models.test_gguf_folder import write as write_gguf
from worker import standalone
from worker.host.inputs import InputFetcher
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Event, Failed, Finished, Stopped, Warned
from worker.sources.cache import NetworkCache
from worker.sources.errors import SourceRefused


def test_a_teacher_in_a_folder_teaches_without_the_service(tmp_path: Path) -> None:
    train(spec({"architecture": CNN, "training": SHORT}), tmp_path / "made")
    folder = tmp_path / "made" / RESULT_FOLDER / "teacher"
    document = spec(
        {"source": f"file:{folder}", "accept_score": "any"}, training={"max_steps": 2, "optimizer": {"name": "adafactor"}}
    )

    last = standalone.train(parse_spec(document), tmp_path / "out", lambda event: None)

    assert isinstance(last, Finished)
    assert last.result["teacher"]["test_score"] == report(tmp_path / "made")["teacher"]["test_score"]


def test_a_network_in_a_folder_is_fine_tuned_and_taught_without_the_service(tmp_path: Path) -> None:
    train(spec({"architecture": CNN, "training": SHORT}), tmp_path / "made")
    source = {"source": f"file:{tmp_path / 'made' / RESULT_FOLDER / 'teacher'}"}
    events: list[Event] = []

    last = standalone.train(parse_spec(spec(source | {"training": SHORT}, student=source)), tmp_path / "out", events.append)

    assert isinstance(last, Finished)
    assert last.result["teacher"]["parameters"] == last.result["student"]["parameters"]
    assert not [event for event in events if isinstance(event, Warned) and event.code == "head_made"]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused_at_its_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    document = spec([{"source": f"file:{tmp_path / name}"}, {"architecture": CNN}])
    with pytest.raises(InvalidSpec, match="there is no folder") as refused:
        standalone.train(parse_spec(document), tmp_path / "out", lambda event: None)
    assert [fault.pointer for fault in refused.value.faults] == ["/teacher/0/source"]


def test_a_worker_reads_a_teacher_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    source = f"file:{tmp_path / 'given'}"
    document = spec([{"source": source}, {"architecture": CNN}])
    inputs = fetched(document, tmp_path / "job")
    assert inputs.paths == {source: tmp_path / "given"}
    assert not (tmp_path / "job").exists()
    assert fetched(document, tmp_path / "job", revisions=inputs.revisions) == inputs

    (tmp_path / "given" / "config.json").write_text("{}")
    with pytest.raises(SourceRefused, match="are others than at the job's first attempt") as refused:
        fetched(document, tmp_path / "job", revisions=inputs.revisions)
    assert refused.value.pointer == "/teacher/0/source"


@pytest.mark.parametrize("outside", ["folder", "link", "file", "data"])
def test_what_lies_outside_a_workers_own_roots_is_not_read_there(outside: str, tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    for folder in (root / "given", secret):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (root / "linked").symlink_to(secret)
    (root / "given" / "labels.json").symlink_to(secret / "config.json")
    (secret / "data.npz").write_bytes(b"")
    source = f"file:{ {'folder': secret, 'link': root / 'linked', 'file': root / 'given'}.get(outside, secret / 'data.npz') }"
    place, changes = "/teacher/source", {}
    if outside == "data":
        place, changes = "/dataset/source", {"dataset": {"source": source}}
    document = spec({"source": source} if outside != "data" else {"architecture": CNN}, **changes)
    access, cache = DirectAccess(Store(f"file://{tmp_path}/store")), NetworkCache(tmp_path / "cache", max_bytes=1)
    with (
        InputFetcher(document, tmp_path / "job", access=access, cache=cache, data_cache=cache, roots=[root]) as fetcher,
        pytest.raises(SourceRefused, match="outside the folders that this service may read") as refused,
    ):
        fetcher.fetch()
    assert refused.value.pointer == place
    assert "STILLHOUSE_FILE_ROOTS" in refused.value.hint


def test_a_run_does_not_go_on_with_another_teacher_in_the_folder(tmp_path: Path) -> None:
    train(spec({"architecture": CNN, "training": SHORT}), tmp_path / "made")
    folder = tmp_path / "made" / RESULT_FOLDER / "teacher"
    document = spec([{"source": f"file:{folder}", "accept_score": "any"}, {"architecture": CNN, "training": SHORT}])

    def attempt() -> Event:
        inputs = fetched(document, tmp_path / "job")
        recorder = StopIn("teacher-2")
        (tmp_path / "job").mkdir(exist_ok=True)
        run(Assignment("job_test", document, tmp_path / "job", inputs.paths, inputs.revisions, num_threads=1), recorder)
        return recorder.events[-1]

    assert attempt() == Stopped("drain")
    (folder / "README.md").write_text("Another one.")
    last = attempt()
    assert isinstance(last, Failed)
    assert (last.code, last.retryable) == ("input_unavailable", False)
    assert f"file:{folder} is at" in last.message


@pytest.fixture
def of_llama_cpp(tmp_path: Path) -> dict[str, Any]:
    """A spec whose student is a network of llama.cpp."""
    (tmp_path / "words.jsonl").write_text("\n".join(json.dumps({"text": f"one {number}"}) for number in range(40)))
    gguf = write_gguf(tmp_path / "given" / "tiny.gguf", tiny_network())
    return language_spec(
        tmp_path / "words.jsonl", teacher={"source": f"file:{gguf}", "accept_score": "any"}, student={"source": f"file:{gguf}"}
    )


def test_a_network_of_llama_cpp_is_converted_by_the_host_and_once_for_all_that_use_its_cache(
    of_llama_cpp: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, cache = DirectAccess(Store(f"file://{tmp_path}/store")), NetworkCache(tmp_path / "cache", max_bytes=2**30)
    source, told = of_llama_cpp["student"]["source"], []
    options: dict[str, Any] = {"access": access, "cache": cache, "data_cache": cache, "roots": [tmp_path]}
    with InputFetcher(
        of_llama_cpp, tmp_path / "job", **options, on_poll=lambda: told.append(fetcher.conversion_seconds)
    ) as fetcher:
        folder = fetcher.fetch().paths[source]
        assert (folder / "model.safetensors").is_file()
        assert told == sorted(told)
        assert 0 < told[-1] <= fetcher.conversion_seconds, "a check does not count it"

    monkeypatch.setenv("STILLHOUSE_NETWORK_CACHE", str(cache.folder))
    with ExitStack() as held:
        (tmp_path / "out").mkdir()
        kept = _network_cache()
        assert kept is not None
        alone = standalone._fetch_networks(parse_spec(of_llama_cpp), tmp_path / "out", kept, held, commits={})
        assert alone[source][0] == folder


@pytest.mark.parametrize("wrong", ["offline", "two"])
def test_without_the_service_too_a_network_that_cannot_be_had_is_told_with_its_place(
    wrong: str, of_llama_cpp: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    if wrong == "two":
        (given / "another.gguf").write_bytes((given / "tiny.gguf").read_bytes())
    else:
        of_llama_cpp["teacher"]["source"] = "hub:anna/words"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(standalone.TrainingFailed) as failed:
        standalone.train(parse_spec(of_llama_cpp), tmp_path / "out", lambda event: None)
    assert failed.value.failed.code == "input_unavailable"
    assert failed.value.failed.details["pointer"] == "/teacher/source"
    (tmp_path / "job.json").write_text(json.dumps(of_llama_cpp))
    monkeypatch.setattr(sys, "argv", ["stillhouse", "train", str(tmp_path / "job.json"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        main()
    assert "input_unavailable at /teacher/source" in " ".join(capsys.readouterr().err.split())
