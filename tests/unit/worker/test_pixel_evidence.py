"""8-bit images of which no pixel shows the white: a teacher's range decides where it can, else they are refused with a remedy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.spec.architectures import SmallCnn
from service.spec.data import DatasetSpec
from tests.unit.worker.test_trained import data_of, images, library_outputs, outputs, refusal, vit
from worker.data import Data, UnusableData, load_data
from worker.models import build_network, save_network
from worker.tasks import TASKS
from worker.trained import load_teacher

CNN = SmallCnn(name="small-cnn", width=2)
DIGITS = load_data(DatasetSpec(source="builtin:digits", targets=["label"]), None, task=TASKS["image-classification"])
STORED = DIGITS.splits["train"].inputs[:200]
assert isinstance(STORED, Tensor)


def of_digits(stored: Tensor, *, max_value: float | None = None) -> Data:
    return replace(data_of(stored, max_value=max_value), targets=DIGITS.targets)


def saved(folder: Path, data: Data) -> Path:
    """A teacher that was trained here on these images."""
    reads = TASKS[data.task].preprocessing(data, CNN)
    shape = reads.input_shape(data.splits["train"].inputs)
    network = build_network(CNN, input_shape=shape, num_outputs=data.targets.width)
    save_network(network.eval(), folder, preprocessing=reads, targets=data.targets)
    return folder


def of_teacher(folder: Path, data: Data) -> tuple[Tensor, list[str]]:
    """Its outputs, and the codes of what is told of it."""
    teacher = load_teacher(folder, source="job:one", data=data)
    return teacher.outputs(data.splits["test"]), [warning.code for warning in teacher.warnings]


BUILTIN, UPLOADED = of_digits(STORED, max_value=16), of_digits(STORED)
FLOATS, UNIT = of_digits(STORED.float()), of_digits(STORED / 16)


@pytest.mark.parametrize(
    ("trained", "given", "told"),
    [
        (BUILTIN, UPLOADED, ["white_by_evidence"]),
        (BUILTIN, FLOATS, []),
        (BUILTIN, UNIT, []),
        (UPLOADED, BUILTIN, ["white_by_evidence"]),
        (UPLOADED, UPLOADED, []),
        (FLOATS, BUILTIN, []),
        (FLOATS, UPLOADED, ["white_by_evidence"]),
        (UNIT, BUILTIN, []),
    ],
)
def test_a_teacher_reads_the_same_digits_however_they_were_uploaded(
    trained: Data, given: Data, told: list[str], tmp_path: Path
) -> None:
    folder = saved(tmp_path, trained)
    expected, _ = of_teacher(folder, trained)
    found, codes = of_teacher(folder, given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert codes == told


def test_digits_of_other_whites_are_refused_with_a_way_that_works(tmp_path: Path) -> None:
    folder = saved(tmp_path / "unit", UNIT)
    with pytest.raises(Exception, match=r"8-bit images have no pixel above 16.*pixels divided by 16 if that is white"):
        of_teacher(folder, UPLOADED)
    of_teacher(folder, UNIT)
    of_teacher(folder, of_digits(STORED / 255))  # as dark as that
    folder = saved(tmp_path / "uploaded", UPLOADED)
    with pytest.raises(Exception, match=r"would read as 255.*trained on 8-bit images up to 16: .* as 8-bit ones up to 16"):
        of_teacher(folder, UNIT)


@pytest.mark.parametrize("white", [1.0, 16.0, 255.0])
def test_dark_photographs_stay_8_bit_images(tmp_path: Path, white: float) -> None:
    dark, bright = images() // 3 + 25, images()
    assert dark.max() == 110
    folder = vit(tmp_path / "library")
    torch.testing.assert_close(outputs(folder, dark), library_outputs(folder, dark), atol=1e-5, rtol=1e-4)
    trained = data_of(bright / 255) if white == 1 else data_of((bright / 255 * white).round().to(torch.uint8), max_value=white)
    folder = saved(tmp_path / "own", trained)
    torch.testing.assert_close(outputs(folder, dark), outputs(folder, dark / 255), atol=1e-5, rtol=1e-4)


def test_images_that_show_no_white_are_refused_by_a_network_of_pictures(tmp_path: Path) -> None:
    folder, dark = vit(tmp_path), images() // 16
    assert "no pixel above 15, and the network was trained on pixels up to 255" in refusal(folder, dark)
    torch.testing.assert_close(outputs(folder, dark / 15), library_outputs(folder, dark * 17), atol=1e-5, rtol=1e-4)


def beside(folder: Path, main: Tensor | None, transfer: Tensor | None) -> Data:
    """The digits, or an upload, with transfer rows; None is the builtin."""
    paths = []
    for name, stored in (("main", main), ("transfer", transfer)):
        paths.append(None if stored is None else folder / f"{name}.npz")
        if stored is not None:
            images, labels = stored.permute(0, 2, 3, 1).numpy(), np.arange(len(stored)) % 10
            columns: dict[str, Any] = {"image": images, "label": labels}
            parts = ("train", "test")
            np.savez(folder / name, **{f"{part}_{column}": values for part in parts for column, values in columns.items()})
    sources = ["builtin:digits" if path is None else f"file:{path}" for path in paths]
    spec = DatasetSpec(source=sources[0], transfer=sources[1], transfer_fraction=0.5, input="image", targets=["label"])
    return load_data(spec, paths[0], task=TASKS["image-classification"], transfer=paths[1])


EIGHT_BIT = STORED * 15


@pytest.mark.parametrize(("main", "transfer"), [(None, STORED), (STORED, None), (STORED / 16, STORED / 16)])
def test_transfer_rows_of_the_same_range_are_taken(main: Tensor | None, transfer: Tensor | None, tmp_path: Path) -> None:
    data = beside(tmp_path, main, transfer)
    assert ("white_by_evidence" in [warning.code for warning in data.warnings]) == (main is None or transfer is None)
    greatest = [split.inputs.max() for split in (data.splits["train"].own, data.splits["train"].transferred)]
    assert greatest[0] == greatest[1]


@pytest.mark.parametrize(
    ("main", "transfer"),
    [(None, EIGHT_BIT), (EIGHT_BIT, None), (STORED, EIGHT_BIT), (STORED / 16, STORED * 15.0), (STORED / 16, STORED.float())],
)
def test_transfer_rows_of_another_range_are_refused(main: Tensor | None, transfer: Tensor | None, tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"store both as floats from 0 \(black\) to 1 \(white\)"):
        beside(tmp_path, main, transfer)
