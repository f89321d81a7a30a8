"""Samples on disk are, row by row, what a reader makes of their file."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.formats import Waveform, read_dataset, write_shards
from service.formats.media.encoded import text_digest
from service.formats.shards.mapped import map_shards
from service.spec.inputs import LogMelFeatures
from service.spec.tasks import TASKS, TaskName
from tests.unit.formats.files import encoded, some_images, write_jsonl, write_npz, write_parquet
from tests.unit.formats.sounds import some_sound, sound_file
from worker.data.audio.clips import measure_sound
from worker.data.disk.stored import Reading, StoredInputs, stored_splits
from worker.data.images.canvas import Canvas
from worker.data.images.pixels import measure_pixels
from worker.data.split import stored_inputs
from worker.teachers.cache_key import inputs_digest

ROWS = 30
PAIR = ("premise", "hypothesis")
FILES: dict[str, tuple[TaskName, str | tuple[str, ...], Callable[[Path], Path]]] = {
    "pictures": (
        "image-classification",
        "image",
        lambda path: write_parquet(
            path / "d.parquet",
            {
                "image": [{"bytes": encoded(image), "path": None} for image in some_images(ROWS, 5, 7, 3)],
                "label": list(range(ROWS)),
            },
        ),
    ),
    "arrays": (
        "image-classification",
        "image",
        lambda path: write_npz(
            path / "d.npz", image=some_images(ROWS, 3, 5, 7).astype(np.float32) / 255, label=np.arange(ROWS) % 3
        ),
    ),
    "clips": (
        "audio-classification",
        "audio",
        lambda path: write_parquet(
            path / "d.parquet",
            {
                "audio": [{"bytes": sound_file(some_sound(800 + 10 * row, seed=row)), "path": None} for row in range(ROWS)],
                "label": [f"c{row % 3}" for row in range(ROWS)],
            },
        ),
    ),
    "texts": (
        "text-classification",
        "text",
        lambda path: write_jsonl(path / "d.jsonl", [{"text": f"text {row} é", "label": f"c{row % 3}"} for row in range(ROWS)]),
    ),
    "pairs": (
        "text-classification",
        PAIR,
        lambda path: write_jsonl(
            path / "d.jsonl",
            [{"premise": f"text {row // 2} é", "hypothesis": f"other {row % 2}", "label": row % 3} for row in range(ROWS)],
        ),
    ),
    "words": (
        "token-classification",
        "tokens",
        lambda path: write_jsonl(path / "d.jsonl", [{"tokens": ["é", f"w{row}"], "tags": ["O", None]} for row in range(ROWS)]),
    ),
    "texts with spans": (
        "token-classification",
        "text",
        lambda path: write_jsonl(
            path / "d.jsonl", [{"text": f"é {row}.", "spans": [{"start": 0, "end": 1, "label": "X"}]} for row in range(ROWS)]
        ),
    ),
}
TARGETS = {"words": "tags", "texts with spans": "spans"}


@pytest.fixture(params=FILES)
def both(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, StoredInputs]:
    """The samples in memory, and those on disk, in several shards."""
    monkeypatch.setattr("service.formats.shards.writer.ROW_GROUP_BYTES", 300)
    monkeypatch.setattr("service.formats.shards.writer.SHARD_BYTES", 600)
    monkeypatch.setattr("service.formats.chunk.CHUNK_BYTES", 200)
    task, column, write = FILES[request.param]
    file, folder = write(tmp_path), tmp_path / "shards"
    columns = (column,) if isinstance(column, str) else column
    targets = [TARGETS.get(request.param, "label")]
    write_shards(file, folder, filename=file.name, task=task, input_column=columns, target_columns=targets)
    map_shards(folder)
    arrays = read_dataset(file, task=task, input_column=columns, target_columns=targets)
    stored = stored_splits(folder, columns, Reading(tmp_path), as_words=TASKS[task].reads_words)
    return stored_inputs(arrays.splits["train"].inputs), stored["train"]


def test_rows_are_those_in_memory_in_any_order(both: tuple[Any, StoredInputs]) -> None:
    in_memory, stored = both
    rows = np.array([29, 0, 7, 7, 13])

    assert len(stored) == ROWS
    assert same(stored.read(), in_memory)
    assert same(stored.read(rows), [in_memory[row] for row in rows])
    assert same(stored[rows][1:].read(), [in_memory[row] for row in rows[1:]])
    assert same(list(stored), list(in_memory))
    assert same([stored[-1]], [in_memory[-1]])
    assert same(stored[:4].followed_by(stored[20:22]).read(), [in_memory[row] for row in (0, 1, 2, 3, 20, 21)])


def test_they_can_be_sent_to_another_process(both: tuple[Any, StoredInputs]) -> None:
    in_memory, stored = both

    assert same(pickle.loads(pickle.dumps(stored[5:9])).read(), in_memory[5:9])


def test_their_digests_are_of_their_content(both: tuple[Any, StoredInputs]) -> None:
    _, stored = both
    digests = stored.digests()

    assert len(set(digests.tolist())) == ROWS
    assert {len(each) for each in digests.tolist()} == {16}
    assert stored[np.array([3, 3, 8])].digests().tolist() == digests[[3, 3, 8]].tolist()
    assert not len(stored[:0].digests())


@pytest.mark.parametrize("others", ["some are grey", "arrays"])
def test_samples_after_others_are_read_in_any_batch(others: str, tmp_path: Path) -> None:
    colours = some_images(8, 5, 7, 3)
    grey = [image[..., 0] for image in colours]
    parts = {"first": list(colours), "second": [*colours[:4], *grey[4:]]}
    stored = {name: _on_disk(images, tmp_path / name) for name, images in parts.items()}
    if others == "arrays":
        (tmp_path / "arrays").mkdir()
        file = write_npz(tmp_path / "arrays" / "d.npz", image=colours, label=np.arange(8))
        stored["first"] = _mapped(file, tmp_path / "arrays")
    joined = stored["first"].followed_by(stored["second"])
    other_way = stored["second"].followed_by(stored["first"])
    whole = torch.cat([stored["first"].read(), stored["second"].read()])
    for rows in (np.array([14, 15]), np.array([15, 2]), np.arange(16)):
        assert torch.equal(joined.read(rows), whole[rows])
        assert torch.equal(other_way.read((rows + 8) % 16), whole[rows])


def _on_disk(images: list[Any], folder: Path) -> StoredInputs:
    folder.mkdir()
    files = [{"bytes": encoded(image), "path": None} for image in images]
    return _mapped(write_parquet(folder / "d.parquet", {"image": files, "label": list(range(len(images)))}), folder)


def _mapped(file: Path, folder: Path) -> StoredInputs:
    write_shards(file, folder / "shards", filename=file.name, task="image-classification", target_columns=["label"])
    map_shards(folder / "shards")
    return stored_splits(folder / "shards", ("image",), Reading(folder))["train"]


def test_what_images_on_disk_are_fitted_to_is_in_the_key_of_a_teachers_outputs(tmp_path: Path) -> None:
    images = _on_disk(list(some_images(8, 5, 7, 3)), tmp_path / "images")
    sizes = (
        None,
        Canvas(4, 6, 3),
        Canvas(6, 4, 3),
        Canvas(4, 6, 3, "stretch"),
        Canvas(4, 6, 3, "crop", "nearest"),
        Canvas(4, 6, 1),
    )
    assert len({inputs_digest(replace(images, canvas=canvas)) for canvas in sizes}) == len(sizes)


def test_one_text_of_a_pair_has_digests_of_its_own(tmp_path: Path) -> None:
    write = FILES["pairs"][2]
    write_shards(write(tmp_path), tmp_path / "shards", filename="d.jsonl", task="text-classification", input_column=PAIR)
    map_shards(tmp_path / "shards")
    first, second = (stored_splits(tmp_path / "shards", (name,), Reading(tmp_path))["train"] for name in PAIR)
    assert [len(set(each.digests().tolist())) for each in (first, second)] == [ROWS // 2, 2]
    assert first.digests()[:2].tolist() == [text_digest("text 0 é")] * 2


def test_what_is_measured_on_them_is_what_is_measured_in_memory(both: tuple[Any, StoredInputs]) -> None:
    in_memory, stored = both
    if stored.is_images:
        one, other = (measure_pixels(images, rescale_factor=1 / 255) for images in (in_memory, stored))
        assert np.allclose([one.mean, one.std], [other.mean, other.std], rtol=1e-12, atol=0)
        assert (stored.pixel_sums.low, stored.pixel_sums.high) == tuple(each.item() for each in in_memory.aminmax())
    elif stored.kind == "audio":
        ours, theirs = (measure_sound(clips, LogMelFeatures(mels=8), most_seconds=0.1) for clips in (in_memory, stored))
        assert ours == theirs


def same(one: Any, other: Any) -> bool:
    """Whether samples are equal, images to the last bit."""
    if isinstance(one[0], Tensor):
        return all(torch.equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))
    if isinstance(one[0], Waveform):
        return all(
            ours.rate == theirs.rate and np.array_equal(ours.samples, theirs.samples)
            for ours, theirs in zip(one, other, strict=True)
        )
    return list(one) == list(other)
