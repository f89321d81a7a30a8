"""What is read from a Parquet file, and what is refused with which words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidFile
from service.formats.chunk import CHUNK_BYTES, ColumnSelection
from service.formats.readers.opening import MAX_UNPACKED_BYTES
from service.formats.readers.parquet import ParquetTable
from tests.unit.formats.files import encoded, inspect, pixels, read, refusal, some_images, target, write_parquet

GREY = some_images(6, 8, 5)
COLOUR = some_images(6, 8, 5, 3)
LABELS = [0, 1, 2, 0, 1, 2]
PNGS = [encoded(image) for image in COLOUR]


@pytest.mark.parametrize(
    "column",
    [
        PNGS,
        pa.array(PNGS, pa.large_binary()),
        [{"bytes": png, "path": None} for png in PNGS],
        COLOUR.tolist(),
        pa.array(COLOUR.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8(), 3), 5))),
        pa.array(COLOUR.transpose(0, 3, 1, 2).tolist(), pa.large_list(pa.large_list(pa.large_list(pa.int16())))),
    ],
    ids=["png", "large png", "struct", "python lists", "fixed lists", "large lists, channels first"],
)
def test_every_way_to_store_an_image_gives_the_same_pixels(tmp_path: Path, column: Any) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": column, "label": LABELS})
    arrays = read(path)
    np.testing.assert_array_equal(pixels(arrays.splits["train"]), COLOUR.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(target(arrays.splits["train"]), LABELS)
    info = inspect(path)
    assert (info.columns["image"].shape, info.columns["image"].dtype) == ([8, 5, 3], "uint8")


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    arrays = read(write_parquet(tmp_path / "a.parquet", {"image": [encoded(image) for image in GREY], "label": LABELS}))
    np.testing.assert_array_equal(pixels(arrays.splits["train"])[:, 0], GREY)


def test_a_jpeg_is_decoded(tmp_path: Path) -> None:
    jpegs = [encoded(image, format="JPEG") for image in COLOUR]
    arrays = read(write_parquet(tmp_path / "a.parquet", {"image": jpegs, "label": LABELS}))
    assert pixels(arrays.splits["train"]).shape == (6, 3, 8, 5)


def test_lists_of_floats_become_float32(tmp_path: Path) -> None:
    images = (GREY / 255).tolist()
    path = write_parquet(tmp_path / "a.parquet", {"image": images, "label": LABELS})
    arrays = read(path)
    assert pixels(arrays.splits["train"]).dtype == np.float32
    np.testing.assert_array_equal(pixels(arrays.splits["train"])[:, 0], (GREY / 255).astype(np.float32))
    assert inspect(path).columns["image"].dtype == "float32"


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_labels_that_are_strings_name_the_classes_in_alphabetical_order(tmp_path: Path, type_: pa.DataType) -> None:
    names = ["dog", "ant", "cat", "cat", "ant", "dog"]
    path = write_parquet(tmp_path / "a.parquet", {"image": PNGS, "label": pa.array(names, pa.string()).cast(type_)})
    arrays = read(path)
    assert arrays.classes["label"] == ["ant", "cat", "dog"]
    assert target(arrays.splits["train"]) == [2, 0, 1, 1, 0, 2]
    info = inspect(path)
    assert (info.classes, info.class_counts) == (["ant", "cat", "dog"], {"train": [2, 2, 2]})


def test_huggingface_class_names_are_honoured(tmp_path: Path) -> None:
    names = ["zebra", "ape", "fish", "never seen"]
    metadata = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": PNGS, "label": LABELS}).replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, tmp_path / "a.parquet")
    info = inspect(tmp_path / "a.parquet")
    assert info.classes == names
    assert info.class_counts == {"train": [2, 2, 2, 0]}
    assert read(tmp_path / "a.parquet").classes == {"label": names}


def test_a_split_column_divides_the_rows(tmp_path: Path) -> None:
    splits = ["train", "test", "train", "train", "train", "test"]
    names = ["a", "b", "a", "b", "a", "a"]
    path = write_parquet(tmp_path / "a.parquet", {"image": PNGS, "label": names, "split": splits, "id": LABELS})
    arrays = read(path)
    assert inspect(path).splits == {"train": 4, "test": 2}
    np.testing.assert_array_equal(pixels(arrays.splits["test"]), COLOUR[[1, 5]].transpose(0, 3, 1, 2))
    assert target(arrays.splits["test"]) == [1, 0]
    assert inspect(path).columns["id"].kind == "other"


def test_a_file_of_many_row_groups_and_batches_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.formats.columns.image.CHUNK_BYTES", 3 * 16 * 8)
    images = some_images(50, 4, 4)
    path = write_parquet(tmp_path / "a.parquet", {"image": images.tolist(), "label": np.arange(50) % 7}, row_group_size=13)
    np.testing.assert_array_equal(pixels(read(path).splits["train"])[:, 0], images)


floats = (GREY / 255).tolist()
with_nan = (GREY / 255).copy()
with_nan[4, 0, 0] = np.nan
ragged = GREY.tolist()
ragged[3][2] = ragged[3][2][:4]
with_null = GREY.tolist()
with_null[5][1][1] = None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"picture": PNGS, "label": LABELS}, "no input column 'image'; its columns are 'picture', 'label'"),
        ({"image": PNGS[:0], "label": pa.array([], pa.int64())}, "has no"),
        ({"image": [*PNGS[:3], PNGS[3][:60], *PNGS[4:]], "label": LABELS}, "row 3 is a broken image file"),
        ({"image": [*PNGS[:3], b"GIF89a", *PNGS[4:]], "label": LABELS}, "row 3 is not a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        ({"image": [*PNGS[:3], None, *PNGS[4:]], "label": LABELS}, "row 3: there is no value"),
        ({"image": [*({"bytes": png} for png in PNGS[:5]), {"bytes": None}], "label": LABELS}, "row 5: there is no value"),
        ({"image": [{"path": "a.png"}] * 6, "label": LABELS}, "a struct without 'bytes'"),
        ({"image": with_nan.tolist(), "label": LABELS}, "row 4: the image holds NaN"),
        ({"image": ragged, "label": LABELS}, "row 3: its lists have not the lengths"),
        ({"image": with_null, "label": LABELS}, "row 5: a number is missing"),
        ({"image": [[1, 2, 3, 4]] * 6, "label": LABELS}, "an image is (height, width)"),
        ({"image": (GREY.astype("i8") * 9).tolist(), "label": LABELS}, "a pixel is not in 0 to 255"),
        ({"image": [[["a"]]] * 6, "label": LABELS}, "pixels are numbers"),
        ({"image": ["a.png"] * 6, "label": LABELS}, "images are the bytes of an image file"),
        ({"image": [encoded(some_images(1, 5))] * 6, "label": LABELS}, "at least 2x2"),
        ({"image": PNGS, "label": [[[0]], [[1]]] * 3}, "integers from 0, strings, booleans or lists"),
        ({"image": PNGS, "label": [0, 1, -2, 0, 1, 2]}, "row 2: label -2"),
        ({"image": PNGS, "label": pa.array([2**63 + 1] * 6, pa.uint64())}, "beyond 64 bits"),
        ({"image": PNGS, "label": LABELS, "split": ["train"] * 5 + [None]}, "row 5: there is no value"),
        ({"image": PNGS, "label": LABELS, "split": ["train"] * 5 + ["../x"]}, "no name of a split"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert words in refusal(write_parquet(tmp_path / "a.parquet", columns))


def test_many_rows_of_one_large_image_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    png = encoded(np.zeros((1000, 1000), np.uint8))
    path = write_parquet(tmp_path / "a.parquet", {"image": [png] * 1000, "label": [0, 1] * 500})
    assert path.stat().st_size < 200_000
    with pytest.raises(InvalidFile, match="at most 100,000,000 may be"):
        inspect(path, max_unpacked_bytes=100_000_000)


def test_a_png_that_declares_far_too_many_pixels_is_refused(tmp_path: Path) -> None:
    png = bytearray(encoded(GREY[0]))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    path = write_parquet(tmp_path / "a.parquet", {"image": [bytes(png)] * 6, "label": LABELS})
    assert "row 0" in refusal(path)


@pytest.mark.parametrize("stored", [PNGS, GREY.tolist()], ids=["png", "lists"])
def test_a_damaged_file_is_refused_or_read_and_nothing_else_ever_happens(tmp_path: Path, stored: Any) -> None:
    names = ["a", "b", "c"] * 2
    path = write_parquet(tmp_path / "a.parquet", {"image": stored, "label": names, "split": ["train"] * 6})
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 37)]
    for _ in range(400):
        flipped = bytearray(whole)
        for place in random.integers(0, len(whole), size=random.integers(1, 4)):
            flipped[place] ^= int(random.integers(1, 256))
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            inspect(path)
        except InvalidFile:
            refused += 1
    assert refused > len(damaged) / 10


@pytest.mark.parametrize("rows_a_group", [100, 1500])
def test_a_file_is_never_in_memory_as_a_whole(rows_a_group: int, tmp_path: Path) -> None:
    image = encoded(some_images(96, 96, 3), format="BMP")
    options: Any = {"use_dictionary": False, "compression": "none", "row_group_size": rows_a_group, "write_batch_size": 10}
    path = write_parquet(tmp_path / "a", {"image": [image] * 1500}, **options)
    before, held = pa.total_allocated_bytes(), []
    with ParquetTable(path, ColumnSelection("image-classification", ("image",), (), MAX_UNPACKED_BYTES)) as table:
        for _ in table.chunks():
            held.append(pa.total_allocated_bytes() - before)
    assert max(held) < 2 * CHUNK_BYTES < path.stat().st_size / 2
