"""Shards read as the file that they were made of. The other tests of readers compare both too, by ``files.read``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidFile
from service.formats import inspect_dataset, read_dataset, write_shards
from service.formats.shards import writer
from service.formats.shards.index import INDEX_FILE, read_index, shard_path
from service.formats.shards.mapped import map_shard, map_shards
from service.spec.tasks import TaskName
from tests.unit.formats.files import assert_same, encoded, inspect, some_images, write_jsonl, write_npz, write_parquet
from tests.unit.formats.sounds import sound_file
from tests.unit.test_archives import zipped

SPLITS = ["test", "train", "train", "test", "train", "test"]
"""They mix in the file."""
LABELS = [None, "b", None, "a", "a", "b"]


def npz(folder: Path) -> Path:
    images = some_images(6, 5, 4, 3).astype(np.float32) / 255
    return write_npz(folder / "a.npz", train_image=images, train_label=np.arange(6) % 2, test_image=images[:3])


def images(folder: Path) -> Path:
    files = [{"bytes": encoded(image), "path": None} for image in some_images(6, 3, 4, 4)]
    return write_parquet(folder / "a", {"image": files, "split": SPLITS, "label": LABELS, "_row": LABELS})


def image_folder(folder: Path) -> Path:
    files = {
        f"{side}/{name}/{row}.png": encoded(some_images(4, 4, seed=row))
        for side in ("train", "test")
        for row, name in enumerate("abab")
    }
    (folder / "a").write_bytes(zipped(list(files.items())))
    return folder / "a"


def sounds(folder: Path) -> Path:
    clips = [sound_file(np.linspace(-1, 1, 100 + row).astype(np.float32)) for row in range(6)]
    return write_parquet(folder / "a", {"audio": clips, "split": SPLITS, "label": np.linspace(0, 1, 6)})


def texts(folder: Path) -> Path:
    rows = [
        {"text": f"żółw {row}", "split": split, "label": label, "_hash": 1.5 * row}
        for row, (split, label) in enumerate(zip(SPLITS, LABELS, strict=True))
    ]
    return write_jsonl(folder / "a.jsonl", ["", *rows])


def answers(folder: Path) -> Path:
    return write_jsonl(
        folder / "a.jsonl", [{"text": f"{row}?", "answer": f"{row}!", "split": split} for row, split in enumerate(SPLITS)]
    )


def tagged(folder: Path) -> Path:
    rows = [{"tokens": ["Ada", "met", "Bo"], "tags": tags} for tags in (["B-PER", "O", None], None, ["B-PER", "O", "B-PER"])]
    return write_jsonl(folder / "a.jsonl", rows)


def spans(folder: Path) -> Path:
    marks = [[{"start": 0, "end": 3, "label": "PER", "by": 7}], [], None]
    return write_parquet(folder / "a", {"text": ["Ada  left", "so it goes", "who?"], "spans": marks})


FILES: list[tuple[TaskName, Callable[[Path], Path], dict[str, Any]]] = [
    ("image-classification", npz, {}),
    ("image-classification", images, {"target_columns": ["label", "_row"]}),
    ("image-classification", image_folder, {}),
    ("audio-classification", sounds, {}),
    ("text-classification", texts, {"target_columns": ["label", "_hash"]}),
    ("sentence-embedding", texts, {}),
    ("causal-lm", answers, {"target_columns": ["answer"]}),
    ("token-classification", tagged, {}),
    ("token-classification", spans, {"input_column": "text", "target_columns": ["spans"]}),
]


@pytest.mark.parametrize(("task", "write", "columns"), FILES, ids=[f"{task}, {write.__name__}" for task, write, _ in FILES])
def test_shards_read_as_their_file_mapped_or_not(
    task: TaskName, write: Callable[[Path], Path], columns: dict[str, Any], tmp_path: Path
) -> None:
    path, shards = write(tmp_path), tmp_path / "shards"
    info = inspect(path, task=task, **columns)
    inspect_dataset(path, filename=path.name, task=task, **columns, shards=shards)
    names = columns.get("target_columns") or [name for name, column in info.columns.items() if column.class_counts]
    selected: Any = {"task": task, "input_column": columns.get("input_column"), "target_columns": names}
    whole, alone = (read_dataset(path, filename=path.name, **(selected | {"target_columns": each})) for each in (names, []))
    assert_same(read_dataset(shards, **selected), whole)
    map_shards(shards)
    assert not list(shards.glob("*.parquet"))
    assert_same(read_dataset(shards, **selected), whole)
    without_targets = read_dataset(shards, **(selected | {"target_columns": []}))
    assert without_targets.classes == alone.classes == {}
    assert_same(without_targets.__class__(without_targets.splits, {}), alone.__class__(alone.splits, {}))
    sizes = {name: split.bytes for name, split in read_index(shards).splits.items()}
    inputs = {name: split.inputs for name, split in whole.splits.items()}
    assert sizes == {name: rows.nbytes if isinstance(rows, np.ndarray) else sizes[name] for name, rows in inputs.items()}


def test_a_split_is_cut_into_shards_and_row_groups_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 100_000)
    monkeypatch.setattr(writer, "SHARD_BYTES", 300_000)
    rows = [{"text": f"{row} " + "x" * 1000, "label": row % 3} for row in range(3000)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    columns: Any = {"task": "text-classification", "target_columns": ["label"]}
    write_shards(path, tmp_path / "shards", filename="a.jsonl", **columns)
    (split,) = read_index(tmp_path / "shards").splits.values()
    assert split.shards == ["train-00000.parquet", "train-00001.parquet", "train-00002.parquet"]
    assert_same(read_dataset(tmp_path / "shards", **columns), read_dataset(path, **columns))
    statistics = pq.read_metadata(tmp_path / "shards" / split.shards[1]).row_group(0).column(0).statistics
    assert statistics.min == 1024
    map_shards(tmp_path / "shards")
    assert_same(read_dataset(tmp_path / "shards", **columns), read_dataset(path, **columns))


def test_rows_have_the_digest_of_their_sample(tmp_path: Path) -> None:
    picture = some_images(4, 4, 3)
    same = [encoded(picture), encoded(picture, format="BMP"), encoded(picture[::-1])]
    rows = [{"text": "a", "answer": "b"}, {"text": "a", "answer": "b"}, {"text": "a", "answer": "c"}]
    write_parquet(tmp_path / "images", {"image": same})
    write_shards(tmp_path / "images", tmp_path / "1", filename="a", task="image-classification")
    write_shards(write_jsonl(tmp_path / "a", rows), tmp_path / "2", filename="a", task="causal-lm", target_columns=["answer"])
    for folder in ("1", "2"):
        first, second, third = pq.read_table(tmp_path / folder / "train-00000.parquet")["_hash"].to_pylist()
        assert first == second != third


def test_a_target_that_was_not_kept_is_named_with_the_remedy(tmp_path: Path) -> None:
    write_shards(texts(tmp_path), tmp_path / "shards", filename="a.jsonl", task="text-classification", target_columns=["label"])
    with pytest.raises(InvalidFile, match="'_hash' was not kept as a target: upload the file again with target_column=_hash"):
        read_dataset(tmp_path / "shards", task="text-classification", target_columns=["_hash"])
    with pytest.raises(InvalidFile, match="no input column 'tokens'"):
        read_dataset(tmp_path / "shards", task="token-classification", target_columns=["tags"])


def test_a_damaged_shard_and_a_folder_without_an_index_are_refused(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write_shards(sounds(tmp_path), shards, filename="a", task="audio-classification")
    shard = shard_path(shards, "train-00000.parquet")
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(InvalidFile, match=r"shard train-00000\.parquet is damaged"):
        map_shard(shard)
    whole = tmp_path / "whole"
    write_shards(sounds(tmp_path), whole, filename="a", task="audio-classification")
    map_shards(whole)
    mapped = shard_path(whole, "train-00000.parquet")
    mapped.write_bytes(mapped.read_bytes()[:-20])
    for folder, name in ((shards, shard.name), (whole, mapped.name)):
        with pytest.raises(InvalidFile, match=f"shard {name} is damaged or gone"):
            read_dataset(folder, task="audio-classification")
    index = json.loads((shards / INDEX_FILE).read_text())
    (shards / INDEX_FILE).write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(InvalidFile, match=r"index\.json of the dataset's shards is not understood"):
        read_index(shards)
    (shards / INDEX_FILE).unlink()
    with pytest.raises(InvalidFile, match=r"has no index\.json"):
        read_index(shards)


def test_a_field_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    write_shards(texts(tmp_path), tmp_path / "shards", filename="a.jsonl", task="sentence-embedding")
    shard = tmp_path / "shards" / "train-00000.parquet"
    table = pq.read_table(shard)
    pq.write_table(
        table.replace_schema_metadata(None).cast(pa.schema([field.remove_metadata() for field in table.schema])), shard
    )
    with pytest.raises(InvalidFile, match="field 'text' of a dataset's shard does not say what it holds"):
        read_dataset(tmp_path / "shards", task="sentence-embedding")
