"""Data of a bucket: a file, or a folder of shards, from what S3 answers to shards, a student or words of refusal."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.formats.shards.index import read_index
from tests.access import fetched
from tests.bucket import Bucket, bucket_server
from tests.integration.feelings import CLASSES, write_texts
from tests.integration.test_hub_data import spec
from worker.sources.data_files import DataFile
from worker.sources.errors import SourceRefused

ANSWER_ALL = """
import json, os, sys
from s3fs import S3FileSystem
from fsspec.registry import _registry
from worker.sources import bucket, bucket_rows
for line in sys.stdin:
    request = json.loads(line)
    revision = bucket.find_revision({"source": request["source"]})
    answer = revision if revision[0] != "revision" else bucket_rows.convert(request | {"revision": revision[1]})
    print(json.dumps(answer))
S3FileSystem.clear_instance_cache()
os.environ |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
print(json.dumps(bucket.find_revision({"source": "s3://lab/one/texts.jsonl"})))
sys.modules["s3fs"] = None
_registry.pop("s3")
print(json.dumps(bucket.find_revision({"source": "s3://lab/one/texts.jsonl"})))
"""
TEXTS = DataFile("texts.jsonl", "text-classification", ("text",), ("label",))
CASES: dict[str, tuple[str, str | None]] = {
    "file": ("one/texts.jsonl", None),
    "zipped": ("one/texts.csv.gz", None),
    "words": ("words", None),
    "folders": ("folders/", None),
    "plain": ("plain", None),
    "column": ("column", None),
    "lines": ("lines", None),
    "row": ("one/broken.jsonl", "line 2"),
    "mixed": ("mixed", "holds both Parquet and JSONL"),
    "other": ("other", "is neither Parquet nor JSONL"),
    "delta": ("delta", "a table of Delta or Iceberg"),
    "some": ("some", "by its name of no split, and others are"),
    "several": ("several", "by its name of several splits"),
    "cut": ("cut", "its rows cannot be read"),
    "nothing": ("nothing", "there is no such file or folder"),
}


def table(rows: list[dict[str, Any]], **more: Any) -> bytes:
    sink = pa.BufferOutputStream()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table(columns | more), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    texts = write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl", count=60)
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    with bucket_server() as bucket:
        bucket.put("one/texts.jsonl", texts)
        lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
        bucket.put("one/texts.csv.gz", gzip.compress("\n".join(lines).encode()))
        bucket.put("one/broken.jsonl", b'{"text": "a", "label": "x"}\n{"text": \n')
        for name, part in (("train-0", rows[:20]), ("train-1", rows[20:40]), ("dev", rows[40:])):
            bucket.put(f"words/{name}.parquet", table(part))
        bucket.put("words/_SUCCESS", b"")
        bucket.put("folders/train/part-0.parquet", table(rows[:40]))
        bucket.put("folders/test/part-0.parquet", table(rows[40:]))
        for number in range(2):
            bucket.put(f"plain/part-{number}.parquet", table(rows[30 * number : 30 * number + 30]))
        bucket.put("column/all.parquet", table(rows, split=["train"] * 40 + ["test"] * 20))
        bucket.put("lines/part-0.jsonl", texts.read_bytes())
        bucket.put("lines/part-1.jsonl", texts.read_bytes())
        bucket.put("mixed/a.parquet", table(rows))
        bucket.put("mixed/b.jsonl", texts)
        bucket.put("other/a.parquet", table(rows))
        bucket.put("other/b.jsonl.gz", gzip.compress(texts.read_bytes()))
        bucket.put("delta/a.parquet", table(rows))
        bucket.put("delta/_delta_log/0.json", b"{}")
        bucket.put("some/train.parquet", table(rows))
        bucket.put("some/more.parquet", table(rows))
        bucket.put("several/train/test.parquet", table(rows))
        bucket.put("cut/a.parquet", b"PAR1 cut off")
        bucket.put("secret.jsonl", texts, bucket="lab-private")
        yield bucket


@pytest.fixture(scope="module", autouse=True)
def environment(bucket: Bucket) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in bucket.environment.items():
            patched.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], Path]]:
    """What the process that converts answers in each case, and its folder."""
    folders = {name: tmp_path_factory.mktemp(name) for name in [*CASES, "away", "absent"]}
    requests = []
    for name, (path, _) in CASES.items():
        file = asdict(TEXTS) | {"filename": Path(path).name}
        requests.append({"source": f"s3://lab/{path}", "folder": str(folders[name]), "file": file, "numbers": []})
    lines = "\n".join(map(json.dumps, requests))
    done = subprocess.run(
        [sys.executable, "-c", ANSWER_ALL], input=lines, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(folders, zip(map(json.loads, done.stdout.splitlines()), folders.values(), strict=True), strict=True))


@pytest.mark.parametrize("name", [name for name, (_, told) in CASES.items() if told])
def test_what_cannot_be_read_is_refused_with_words(name: str, answers: dict[str, tuple[list[Any], Path]]) -> None:
    (kind, detail, *_), _ = answers[name]
    assert kind in ("invalid", "refused")
    assert str(CASES[name][1]) in detail


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("file", {"train": 60}),
        ("zipped", {"train": 60}),
        ("words", {"train": 40, "validation": 20}),
        ("folders", {"train": 40, "test": 20}),
        ("plain", {"train": 60}),
        ("column", {"train": 40, "test": 20}),
        ("lines", {"train": 120}),
    ],
)
def test_a_file_or_a_folder_is_read_with_the_splits_that_it_names(
    name: str, splits: dict[str, int], answers: dict[str, tuple[list[Any], Path]]
) -> None:
    answered, folder = answers[name]
    assert answered == ["done"]
    index = read_index(folder)
    assert {split: shards.rows for split, shards in index.splits.items()} == splits
    assert {path.suffix for path in folder.iterdir()} == {".arrow", ".json"}


def test_a_bucket_that_is_away_and_a_worker_without_the_library_are_told_apart(
    answers: dict[str, tuple[list[Any], Path]],
) -> None:
    assert answers["away"][0][0] == "away"
    assert answers["absent"][0] == [
        "absent",
        "s3://lab/one/texts.jsonl cannot be fetched: the worker has no s3fs.",
        "Install its extra: pip install 'stillhouse[s3]'.",
    ]


def test_a_job_keeps_to_the_files_that_its_first_attempt_found(bucket: Bucket, tmp_path: Path) -> None:
    rows = [{"text": f"glee {number}", "label": CLASSES[number % 3]} for number in range(60)]
    source = bucket.put("own/train.parquet", table(rows))
    document = spec(source)
    first = fetched(document, tmp_path / "job", urls=["s3://lab"])
    assert set(first.paths) == set(first.revisions) == {source}

    bucket.put("own/train.parquet", table([{"text": "woe", "label": "sadness"}] * 60))
    again = fetched(document, tmp_path / "job", urls=["s3://lab"], revisions=first.revisions)
    assert again.paths == first.paths, "this host still has them"
    with pytest.raises(SourceRefused, match="others than at the job's first attempt") as refused:
        fetched(document, tmp_path / "elsewhere" / "job", urls=["s3://lab"], revisions=first.revisions)
    assert refused.value.pointer == "/dataset/source"


@pytest.mark.parametrize("urls", [[], ["s3://lab-private"], ["s3://lab/own"], ["s3://lab/o"]])
def test_a_worker_reads_what_its_own_list_allows(urls: list[str], tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="its STILLHOUSE_DATA_URLS") as refused:
        fetched(spec("s3://lab/one/texts.jsonl"), tmp_path / "job", urls=urls)
    assert refused.value.pointer == "/dataset/source"
