"""``dataset.image``: the size that images of several are fitted to, what a spec may say of it, and where it is needed."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.canvas import ImageFit
from service.spec.data import Column, DatasetInfo, DatasetSpec, ImageSizes
from service.spec.data_fit import image_shape
from service.spec.fit import check_fit

SIZES = ImageSizes(least=[30, 40], greatest=[600, 800], most_common=[[600, 800, 9]], channels=3)
CNN = {"architecture": {"name": "small-cnn", "width": 8}}


def info(dtype: str = "uint8", **column: Any) -> DatasetInfo:
    columns = {
        "image": Column(kind="image", dtype=dtype, **(column or {"sizes": SIZES})),
        "label": Column(kind="label", dtype="string", num_classes=2, classes=["a", "b"]),
    }
    return DatasetInfo(task="image-classification", splits={"train": 100}, columns=columns, classes=["a", "b"])


def faults(data: DatasetInfo, *, teacher: Any = None, augment: Any = (), **dataset: Any) -> dict[str, str]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "file:a.zip"} | dataset,
        "teacher": teacher or CNN,
        "student": CNN,
        "training": {"augment": list(augment)},
    }
    return {fault.pointer: fault.message for fault in check_fit(parse_spec(document), data, teachers={})}


def test_images_of_several_sizes_need_a_size_where_no_network_is_given() -> None:
    (message,) = [message for pointer, message in faults(info()).items() if pointer == "/dataset/image"]
    assert "heights from 30 to 600 and widths from 40 to 800" in message
    assert "for instance image: {size: 30}" in message
    assert "/dataset/image" in faults(info(), image={"fit": "pad"})
    assert not faults(info(), image={"size": 32})
    assert not faults(info(), teacher={"source": "hub:a/b"})
    assert not faults(info(shape=[32, 32, 3]))


def test_the_shape_that_networks_read_is_that_of_the_size() -> None:
    assert image_shape(DatasetSpec(source="file:a", image=ImageFit(size=20)), info()) == (3, 20, 20)
    assert image_shape(DatasetSpec(source="file:a", image=ImageFit(size=[20, 30])), info(shape=[9, 9, 1])) == (1, 20, 30)
    assert image_shape(DatasetSpec(source="file:a"), info(shape=[9, 8, 1])) == (1, 9, 8)
    assert image_shape(DatasetSpec(source="file:a"), info()) is None


def test_images_too_small_for_an_architecture_are_told_by_the_size_they_are_fitted_to() -> None:
    found = faults(info(), image={"size": 3})
    assert found.keys() == {"/teacher/architecture/name", "/student/architecture/name"}
    assert "these have 3x3" in found["/student/architecture/name"]


def test_arrays_of_floats_have_no_fit() -> None:
    assert "arrays of floats" in faults(info("float32", shape=[32, 32, 3]), image={"size": 16})["/dataset/image"]


@pytest.mark.parametrize("column", [{"sizes": SIZES}, {"shape": [40, 40, 3]}])
def test_windows_of_whole_images_come_first(column: Any) -> None:
    crop = "random-resized-crop"
    assert not faults(info(**column), image={"size": 32}, augment=[crop, "flip"])
    found = faults(info(**column), image={"size": 32}, augment=["flip", crop])
    assert "put it first" in found["/training/augment/1"]
    assert not faults(info(shape=[40, 40, 3]), augment=["flip", crop])


@pytest.mark.parametrize(
    ("image", "pointer"),
    [
        ({"size": 1}, "/dataset/image/size"),
        ({"size": [224]}, "/dataset/image/size"),
        ({"size": 224, "fit": "cut"}, "/dataset/image/fit"),
        ({"size": 224, "interpolation": "area"}, "/dataset/image/interpolation"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(image: Any, pointer: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        faults(info(), image=image)
    assert any(fault.pointer.startswith(pointer) for fault in refused.value.faults)


@pytest.mark.parametrize("source", ["builtin:digits", "dataset:ds_01hzx3v0000000000000000000"])
def test_rows_are_skipped_where_a_file_is_read_alone(source: str) -> None:
    with pytest.raises(InvalidSpec, match="as a dataset is uploaded"):
        faults(info(), source=source, skip_broken=True)
    assert not faults(info(), skip_broken=True, image={"size": 32})
