"""The cache of teachers' outputs: what is read is what was written, whole, or it is not there."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from worker.teachers.cache import TeacherCache
from worker.teachers.cache_key import key_of

KEY = {"network": "a", "view": "plain"}


def outputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "logits": torch.randn(7, 3, generator=generator),
        "features/layer1": torch.randn(7, 2, 4, 4, generator=generator),
        "counted": torch.arange(14).view(7, 2) % 2 == 0,
    }


def write(cache: TeacherCache, *, num_samples: int = 7) -> None:
    with cache.write(KEY, num_samples=num_samples) as rows:
        for start in (0, 4):
            rows.add({name: each[start : start + 4] for name, each in outputs().items()})


def place(folder: Path) -> Path:
    key = key_of(KEY)
    return folder / key[:2] / key


def same(found: dict[str, Tensor] | None) -> bool:
    return found is not None and all(
        torch.equal(found[name], each) and found[name].dtype == each.dtype for name, each in outputs().items()
    )


def test_what_was_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    assert cache.read(KEY) is None
    write(cache)
    assert same(cache.read_back(KEY))
    assert same(TeacherCache(tmp_path).read(KEY))
    assert TeacherCache(tmp_path).read(KEY | {"view": "another"}) is None
    assert [path.name for path in tmp_path.iterdir()] == [key_of(KEY)[:2]]


def test_the_files_are_mapped_and_stay_as_they_are_whatever_is_done_to_the_tensors(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    write(cache)
    found = cache.read(KEY)
    assert found is not None
    found["logits"].zero_()
    assert same(cache.read(KEY))


def test_what_is_removed_stays_readable_for_those_who_read_it_already(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    write(cache)
    found = cache.read(KEY)
    shutil.rmtree(tmp_path)
    assert same(found)
    assert cache.read(KEY) is None


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (truncate, "0.rows"),
        (change, "1.rows"),
        (Path.unlink, "2.rows"),
        (truncate, "outputs.json"),
        (Path.unlink, "outputs.json"),
        (lambda path: path.write_text("[]"), "outputs.json"),
        (lambda path: path.write_text(json.dumps({"outputs": {"logits": {"file": "../x"}}})), "outputs.json"),
    ],
    ids=["truncated", "changed", "missing", "half an index", "no index", "another index", "a stranger's index"],
)
def test_what_is_damaged_is_not_there_and_can_be_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], file: str
) -> None:
    cache = TeacherCache(tmp_path)
    write(cache)
    damage(place(tmp_path) / file)
    with caplog.at_level(logging.WARNING):
        assert cache.read(KEY) is None
    assert "cannot be used and are computed again" in caplog.text
    write(cache)
    assert same(cache.read(KEY))


def test_a_writer_that_stops_halfway_leaves_nothing(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)

    def write_half() -> None:
        with cache.write(KEY, num_samples=7) as rows:
            rows.add({name: each[:4] for name, each in outputs().items()})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert cache.read(KEY) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_too_few_rows_are_never_kept(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    with pytest.raises(ValueError, match="7 rows of 8"):
        write(cache, num_samples=8)
    assert cache.read(KEY) is None


def test_of_two_who_write_the_same_the_second_does_no_harm(tmp_path: Path) -> None:
    first, second = TeacherCache(tmp_path), TeacherCache(tmp_path)
    with first.write(KEY, num_samples=7) as rows:
        rows.add(outputs())
        write(second)
        found = second.read(KEY)
    assert same(found)
    assert same(first.read(KEY))
    assert [path.name for path in tmp_path.iterdir()] == [key_of(KEY)[:2]]


def test_what_a_killed_writer_left_goes_with_a_later_write_and_what_another_is_writing_stays(tmp_path: Path) -> None:
    for name, age in (("writing-old", 200_000), ("writing-new", 0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "0.rows").write_bytes(b"half")
        for path in (folder / "0.rows", folder):
            changed = path.stat().st_mtime - age
            os.utime(path, (changed, changed))
    write(TeacherCache(tmp_path))
    assert not (tmp_path / "writing-old").exists()
    assert (tmp_path / "writing-new").exists()


def test_a_disk_that_would_be_almost_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.teachers.cache.shutil.disk_usage", lambda path: SimpleNamespace(total=10_000, free=1_500))
    with pytest.raises(OSError, match="less than a tenth"):
        write(TeacherCache(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_use_makes_the_index_young_again(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    write(cache)
    index = place(tmp_path) / "outputs.json"
    os.utime(index, (1, 1))
    cache.read(KEY)
    assert index.stat().st_mtime > 1
