"""Data of the Hub, served by a local stand-in for it: from the files of a repository to shards, a student or words of refusal."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidSpec
from service.formats import read_dataset
from service.formats.shards.index import read_index
from service.spec import parse_spec
from tests.access import fetched_for_check
from tests.hub import Hub, hub_server
from tests.integration.feelings import CLASSES, write_texts
from tests.integration.test_hub import attempt
from tests.unit.formats.files import encoded, some_images
from worker.protocol import RESULT_FOLDER, Finished, Stopped
from worker.sources.data_files import DataFile
from worker.sources.errors import HubAway, NotOnThisHost, SourceRefused
from worker.sources.remote_data import DESCRIPTION_FILE
from worker.standalone import TrainingFailed, train

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = COMMIT[::-1]
CARD = """---
dataset_info:
- config_name: feelings
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': anger
          '1': joy
          '2': sadness
configs:
- config_name: feelings
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
- config_name: broken
  data_files:
  - split: train
    path: broken.parquet
- config_name: outside
  data_files:
  - split: train
    path: {outside}
- config_name: web
  data_files:
  - split: train
    path: http://127.0.0.1:9/secret.parquet
---
"""
TEXTS = DataFile("anna/feelings.parquet", "text-classification", ("text",), ("label",))
IMAGES = DataFile("anna/pictures.parquet", "image-classification", ("image",), ("label",))
ANSWER_ALL = """
import json, sys
from worker.sources import hub_rows
hub_rows.confine()
print(json.dumps([hub_rows.convert(request) for request in json.load(sys.stdin)]))
"""


def feelings(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A repository of two splits, whose classes are named on its card alone."""
    (folder / "data").mkdir(parents=True)
    outside = write_texts(folder.parent / "secret.jsonl", count=3)
    (folder / "README.md").write_text(CARD.format(outside=outside))
    for split, part in (("train", rows[:180]), ("test", rows[180:])):
        columns = {"text": [row["text"] for row in part], "label": [CLASSES.index(row["label"]) for row in part]}
        unread = {"embedding": [[0.5] * 8] * len(part)}
        pq.write_table(pa.table(columns | unread), folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=50)
    (folder / "broken.parquet").write_bytes(b"PAR1 cut off")
    return folder


def pictures(folder: Path) -> Path:
    """A folder of files of images, one of which is broken."""
    for number, image in enumerate(some_images(12, 6, 6, 3)):
        path = folder / ("test" if number >= 8 else "train") / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image) if number != 9 else b"\x89PNG cut off")
    return folder


def embedded(folder: Path) -> Path:
    """A Parquet file with images inside, and the names of others: one beside it, one of this host, one that is not there."""
    folder.mkdir()
    content = encoded(some_images(1, 6, 6, 3)[0])
    (folder / "beside.png").write_bytes(content)
    own = f"hf://datasets/anna/embedded@{COMMIT}"
    for split, path in (("train", f"{own}/beside.png"), ("host", "/etc/hostname"), ("gone", f"{own}/gone.png")):
        images = [{"bytes": content, "path": "a.png"}, {"bytes": None, "path": path}]
        features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}}}
        table = pa.table({"image": images, "label": ["cat", "dog"]}).replace_schema_metadata(
            {"huggingface": json.dumps(features)}
        )
        pq.write_table(table, folder / f"{split}.parquet")
    configs = [{"config_name": name, "data_files": f"{name}.parquet"} for name in ("train", "host", "gone")]
    configs[0]["default"] = True  # type: ignore[assignment]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    texts = write_texts(tmp_path_factory.mktemp("rows") / "texts.jsonl")
    return [json.loads(line) for line in texts.read_text().splitlines()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    with hub_server() as hub:
        hub.add("anna/feelings", feelings(folder / "feelings", rows), commit=COMMIT)
        hub.add("anna/pictures", pictures(folder / "pictures"), commit=COMMIT)
        hub.add("anna/embedded", embedded(folder / "embedded"), commit=COMMIT)
        (folder / "lines").mkdir()
        write_texts(folder / "lines" / "train.jsonl", count=30)
        hub.add("anna/lines", folder / "lines", commit=COMMIT)
        hub.add("anna/hers", folder / "lines", commit=COMMIT, token="hf_hers")
        (folder / "script").mkdir()
        (folder / "script" / "script.py").write_text("raise SystemExit('it ran')\n")
        hub.add("anna/script", folder / "script", commit=COMMIT)
        (folder / "molecules").mkdir()
        (folder / "molecules" / "a.fasta").write_text(">a\nACGT\n")
        hub.add("anna/molecules", folder / "molecules", commit=COMMIT)
        yield hub


@pytest.fixture(scope="module", autouse=True)
def environment(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_ENDPOINT", hub.url)
        patched.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))
        patched.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patched.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield


CASES: dict[str, tuple[str, DataFile, str | None]] = {
    "named": ("hub:anna/feelings:feelings", TEXTS, None),
    "lines": ("hub:anna/lines", TEXTS, None),
    "pictures": ("hub:anna/pictures", DataFile(**asdict(IMAGES) | {"skip_broken": True}), None),
    "marked": ("hub:anna/embedded", IMAGES, None),
    "unnamed": (
        "hub:anna/feelings",
        TEXTS,
        "several configs: name one of hub:anna/feelings:feelings, hub:anna/feelings:b",
    ),
    "misnamed": ("hub:anna/feelings@main:moods", TEXTS, "there is no config 'moods'; there are hub:anna/feelings@main:feelings"),
    "column": (
        "hub:anna/feelings:feelings",
        DataFile("a.parquet", "text-classification", ("review",), ("label",)),
        "there is no column 'review'; its columns are 'text', 'label'",
    ),
    "file": ("hub:anna/feelings:broken", TEXTS, "its rows cannot be read (Parquet magic bytes not found in footer"),
    "outside": ("hub:anna/feelings:outside", TEXTS, "names files that are not in the repository"),
    "web": ("hub:anna/feelings:web", TEXTS, "names files that are not in the repository"),
    "row": ("hub:anna/pictures", IMAGES, "row 11 is not a PNG, JPEG, WebP, GIF, BMP or TIFF"),
    "place": ("hub:anna/pictures", IMAGES, f"(row 3 of split 'test', hf://datasets/anna/pictures@{COMMIT}/test/dog/9.png)"),
    "host": ("hub:anna/embedded:host", IMAGES, "it names the file '/etc/hostname', which is not its own"),
    "gone": ("hub:anna/embedded:gone", IMAGES, "/gone.png', which is not there"),
    "script": ("hub:anna/script", TEXTS, "never run"),
    "kind": ("hub:anna/molecules", TEXTS, "files of its kind (fasta) are not read"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], Path]]:
    """What the process that converts answers in each case, and its folder."""
    folders = {name: tmp_path_factory.mktemp(name) for name in [*CASES, "hers"]}
    requests: list[dict[str, Any]] = [
        {"source": source, "revision": COMMIT, "token": None, "folder": str(folders[name]), "file": asdict(file), "numbers": []}
        for name, (source, file, _) in CASES.items()
    ]
    lines = requests[list(CASES).index("lines")]
    requests.append(lines | {"source": "hub:anna/hers", "folder": str(folders["hers"]), "token": "hf_anothers"})
    done = subprocess.run(
        [sys.executable, "-c", ANSWER_ALL], input=json.dumps(requests), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(folders, zip(json.loads(done.stdout), folders.values(), strict=True), strict=True))


@pytest.mark.parametrize("name", [name for name, (*_, told) in CASES.items() if told])
def test_what_cannot_be_read_is_refused_with_words(name: str, answers: dict[str, tuple[list[Any], Path]]) -> None:
    (kind, detail), _ = answers[name]
    assert kind == "invalid"
    assert str(CASES[name][2]) in detail


def test_a_token_that_may_not_read_it_is_told_and_not_repeated(answers: dict[str, tuple[list[Any], Path]]) -> None:
    kind, message, hint = answers["hers"][0]
    assert kind == "refused"
    assert "is not for this token" in message
    assert "hf_anothers" not in message + hint


def test_the_splits_and_the_class_names_are_the_repositorys(answers: dict[str, tuple[list[Any], Path]]) -> None:
    answered, folder = answers["named"]
    assert answered == ["done"]
    index = read_index(folder)
    assert {split: shards.rows for split, shards in index.splits.items()} == {"train": 180, "test": 60}
    assert index.class_names == {"label": CLASSES}
    assert "embedding" not in index.columns
    assert answers["lines"][0] == ["done"]
    assert {path.suffix for path in folder.iterdir()} == {".arrow", ".json"}


def test_files_of_images_stay_as_they_are_and_broken_ones_are_left_out_and_counted(
    answers: dict[str, tuple[list[Any], Path]], hub: Hub
) -> None:
    answered, folder = answers["pictures"]
    assert answered == ["done"]
    info = json.loads((folder / DESCRIPTION_FILE).read_text())
    assert (info["splits"], info["classes"]) == ({"train": 8, "test": 3}, ["cat", "dog"])
    assert "rows_skipped" in [warning["code"] for warning in info["warnings"]]
    (shard,) = read_index(folder).splits["train"].shards
    stored = pa.ipc.open_file(folder / shard.replace(".parquet", ".arrow")).read_all()["image"].to_pylist()
    repository = hub.repositories["anna/pictures"].commits[COMMIT]
    assert sorted(stored) == sorted(path.read_bytes() for path in repository.glob("train/*/*.png"))

    assert answers["marked"][0] == ["done"]
    beside = read_dataset(answers["marked"][1], task="image-classification", target_columns=["label"])
    first, second = np.asarray(beside.splits["train"].inputs)
    assert np.array_equal(first, second)


def spec(source: str, **dataset: Any) -> dict[str, Any]:
    network = {
        "name": "transformers",
        "model_type": "bert",
        "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    }
    training = {"max_steps": 4, "batch_size": 16}
    tokenizer = {"train": "wordpiece", "vocab_size": 100, "max_length": 8}
    return {
        "task": "text-classification",
        "dataset": {"source": source} | dataset,
        "teacher": {"architecture": network, "tokenizer": tokenizer, "training": training, "accept_score": "any"},
        "student": {"architecture": network},
        "training": training,
        "evaluation": {"control": False},
    }


def test_a_job_goes_on_with_the_commit_that_its_first_attempt_found_and_needs_no_hub_then(
    hub: Hub, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    source, transfer = "hub:anna/feelings:feelings", "hub:anna/lines"
    document = spec(source, transfer=transfer)
    stopped, noted = attempt(document, tmp_path / "job", stop_in="student")
    assert stopped[-1] == Stopped("drain"), stopped[-1]
    assert noted == {source: COMMIT, transfer: COMMIT}
    repository = hub.repositories["anna/feelings"]
    hub.add("anna/feelings", feelings(tmp_path / "later" / "feelings", rows[::-1]), commit=LATER)
    hub.is_down = True
    try:
        events, _ = attempt(document, tmp_path / "job", revisions=noted)
        with pytest.raises(HubAway):
            attempt(document, tmp_path / "another")
    finally:
        hub.is_down = False
        repository.branches["main"] = COMMIT
    assert isinstance(events[-1], Finished), events[-1]
    result = tmp_path / "job" / RESULT_FOLDER
    assert json.loads((result / "report.json").read_text())["data"]["classes"] == CLASSES
    written = json.loads((result / "spec.json").read_text())["dataset"]
    assert written["source"] == f"hub:anna/feelings@{COMMIT}:feelings"
    assert written["transfer"] == f"hub:anna/lines@{COMMIT}"
    assert parse_spec(json.loads((result / "spec.json").read_text()))

    with pytest.raises(SourceRefused) as refused:
        fetched_for_check(document | {"dataset": document["dataset"] | {"splits": {"train": "learn"}}}, tmp_path / "check")
    assert refused.value.pointer == "/dataset/splits/train"
    assert refused.value.code == "invalid_data"


def test_an_offline_worker_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotOnThisHost, match="the worker is offline") as refused:
        fetched_for_check(spec("hub:anna/feelings:feelings"), tmp_path / "job")
    assert refused.value.pointer == "/dataset/source"


def test_a_training_without_the_service_reads_the_same(tmp_path: Path) -> None:
    train(parse_spec(spec("hub:anna/feelings@main:feelings")), tmp_path / "out", lambda event: None)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["data"]["classes"] == CLASSES
    written = json.loads((tmp_path / "out" / "spec.json").read_text())
    assert written["dataset"]["source"] == f"hub:anna/feelings@{COMMIT}:feelings"

    with pytest.raises(TrainingFailed, match="there is no repository anna/nothing") as refused:
        train(parse_spec(spec("hub:anna/nothing")), tmp_path / "nothing", lambda event: None)
    assert refused.value.failed.details == {"pointer": "/dataset/source"}


def test_data_and_a_network_of_one_name_are_told_apart_by_a_revision() -> None:
    document = spec("hub:anna/digits")
    document["teacher"] = {"source": "hub:anna/digits", "accept_score": "any"}
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(document)
    assert "such as hub:anna/digits@main" in refused.value.faults[0].message
    document["dataset"]["source"] = "hub:anna/digits@main"
    assert parse_spec(document)


@pytest.mark.parametrize("source", ["hub:anna/digits:", "hub:anna/digits:a/b", "hub:anna/digits:a:b", "hub:../digits", "hub::a"])
def test_what_is_no_name_of_a_dataset_is_refused(source: str) -> None:
    with pytest.raises(InvalidSpec):
        parse_spec(spec(source))
