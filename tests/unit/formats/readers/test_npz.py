"""What is read from an npz, and what is refused with which words."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InvalidFile
from tests.unit.formats.files import inspect, pixels, read, refusal, some_images, target, write_npz

LABELS = np.arange(12) % 3


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("stored", "channels_first"),
    [
        (some_images(12, 8, 6), lambda images: images[:, None]),
        (some_images(12, 8, 6, 3), lambda images: images.transpose(0, 3, 1, 2)),
        (some_images(12, 3, 8, 6), lambda images: images),
        (some_images(12, 1, 8, 8), lambda images: images),
        (some_images(12, 3, 3, 3), lambda images: images.transpose(0, 3, 1, 2)),
        (some_images(12, 3, 4, 4), lambda images: images),
    ],
)
def test_the_channels_are_found_wherever_they_stand(
    tmp_path: Path, stored: NDArray[np.uint8], channels_first: Any, compressed: bool
) -> None:
    path = write_npz(tmp_path / "a.npz", compressed=compressed, image=stored, label=LABELS)
    arrays = read(path)
    expected = channels_first(stored)
    np.testing.assert_array_equal(pixels(arrays.splits["train"]), expected)
    np.testing.assert_array_equal(target(arrays.splits["train"]), LABELS)
    shape = inspect(path).columns["image"].shape
    assert shape == [expected.shape[2], expected.shape[3], expected.shape[1]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floating_point_pixels_become_float32(tmp_path: Path, dtype: str) -> None:
    stored = np.linspace(-1, 1, 12 * 16).reshape(12, 4, 4).astype(dtype)
    arrays = read(write_npz(tmp_path / "a.npz", image=stored, label=LABELS.astype("<u2")))
    assert pixels(arrays.splits["train"]).dtype == np.float32
    np.testing.assert_array_equal(pixels(arrays.splits["train"])[:, 0], stored.astype(np.float32))


def test_splits_and_classes_are_told_with_their_counts(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "a.npz",
        train_image=some_images(12, 4, 4),
        train_label=LABELS,
        test_image=some_images(4, 4, 4),
        test_label=[2, 2, 0, 2],
        note=np.ones(3),
    )
    info = inspect(path)
    assert info.splits == {"train": 12, "test": 4}
    assert info.classes == ["0", "1", "2"]
    assert info.class_counts == {"train": [4, 4, 4], "test": [1, 0, 3]}
    assert info.columns["label"].num_classes == 3
    assert info.columns["note"].kind == "other"


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=some_images(4, 4, 4), train_x=some_images(12, 4, 4), train_y=LABELS)
    info = inspect(path, input_column="x", target_columns=["y"])
    assert (info.splits, info.columns["x"].kind, info.columns["y"].kind) == ({"train": 12}, "image", "label")


def test_a_file_many_chunks_long_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.formats.readers.npz.CHUNK_BYTES", 100)
    stored = some_images(50, 5, 5)
    labels = np.arange(50) % 7
    arrays = read(write_npz(tmp_path / "a.npz", compressed=True, image=stored, label=labels))
    np.testing.assert_array_equal(pixels(arrays.splits["train"])[:, 0], stored)
    np.testing.assert_array_equal(target(arrays.splits["train"]), labels)


with_nan = np.ones((12, 4, 4), np.float32)
with_nan[7, 1, 1] = np.nan
too_large = np.ones((12, 4, 4))
too_large[3] = 1e300


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"label": LABELS}, "no array 'image'"),
        ({"pixels": some_images(12, 4, 4), "label": LABELS}, "the file has 'pixels', 'label'"),
        ({"train_image": some_images(12, 4, 4), "test_label": LABELS}, "has no array"),
        ({"image": some_images(11, 4, 4), "label": LABELS}, "has 11 rows and array 'label' 12"),
        ({"image": some_images(0, 4, 4), "label": LABELS[:0]}, "split 'train' has no rows"),
        ({"image": with_nan, "label": LABELS}, "row 7: the image holds NaN"),
        ({"image": too_large, "label": LABELS}, "row 3: the image holds NaN or an infinite"),
        ({"image": some_images(12, 4, 4), "label": LABELS.astype("c8")}, "labels are integers"),
        ({"image": some_images(12, 4, 4), "label": np.array(["a" * 1001] * 12)}, "labels are integers or strings"),
        ({"image": some_images(12, 4, 4), "label": np.array([b"a"] * 12)}, ".astype('str')"),
        ({"image": some_images(12, 4, 4), "label": LABELS - 2}, "row 0: label -2"),
        ({"image": some_images(12, 4, 4), "label": LABELS * 10**6}, "has the label 2000000; class indices run from 0 to 99,999"),
        ({"image": some_images(12, 4, 4), "label": LABELS.astype("u8") + 2**63}, "row 0: the label is beyond 64 bits"),
        ({"image": some_images(12, 4, 4), "label": LABELS[:, None]}, "a label is one integer"),
        ({"image": some_images(12, 16), "label": LABELS}, "it is (rows, height, width)"),
        ({"image": some_images(12, 8, 8, 8), "label": LABELS}, "no side is the channels"),
        ({"image": some_images(12, 8, 0), "label": LABELS}, "at least 2x2"),
        ({"image": some_images(12, 8, 1), "label": LABELS}, "at least 2x2"),
        ({"image": some_images(12, 4, 4).astype("int64"), "label": LABELS}, ".astype('uint8')"),
        ({"image": some_images(12, 4, 4).astype("c8"), "label": LABELS}, "pixels are uint8"),
        ({"image": np.asfortranarray(some_images(12, 4, 4)), "label": LABELS}, "numpy.ascontiguousarray(image)"),
        ({"image": some_images(12, 4, 4), "train_image": some_images(12, 4, 4), "label": LABELS}, "keep one"),
        (
            {"train_image": some_images(12, 4, 4), "train_label": LABELS, "b_image": some_images(2, 5, 4), "b_label": [0, 1]},
            "all splits take one shape",
        ),
        ({"a/../b_image": some_images(12, 4, 4), "a/../b_label": LABELS}, "no name of a split"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    assert words in refusal(write_npz(tmp_path / "a.npz", **arrays))


def test_pickled_objects_are_refused_and_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = write_npz(tmp_path / "a.npz", image=np.array([Bomb()] * 3, dtype=object), label=np.arange(3))
    assert "Python objects, which are pickled and never loaded" in refusal(path)
    assert not (tmp_path / "ran").exists()


def test_a_zip_that_would_unpack_beyond_the_limit_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", compressed=True, image=np.zeros((1000, 64, 64), np.uint8), label=np.arange(1000) % 2)
    assert path.stat().st_size < 100_000
    with pytest.raises(InvalidFile, match="at most 1,000,000 may be"):
        inspect(path, max_unpacked_bytes=1_000_000)


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 8, 8)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", member.getvalue())
    assert "is cut off or broken" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"a,b\n1,2\n", "neither an npz nor a Parquet"), (b"PK\x03\x04" + b"0" * 100, "broken or cut off")],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    assert words in refusal(tmp_path / "a.npz")


def test_a_zip_without_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("cat/1.png", b"")
    assert "holds no arrays" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_refused_or_read_and_nothing_else_ever_happens(tmp_path: Path, compressed: bool) -> None:
    path = write_npz(tmp_path / "a.npz", compressed=compressed, image=some_images(6, 4, 4), label=np.arange(6) % 2)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(400):
        flipped = bytearray(whole)
        for place in random.integers(0, len(whole), size=random.integers(1, 4)):
            flipped[place] ^= int(random.integers(1, 256))
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                inspect(path)
        except InvalidFile:
            refused += 1
    assert refused > len(damaged) / 2
