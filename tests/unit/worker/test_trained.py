"""Teachers that were trained before: what they compute of a dataset's images is what their library computes, or a refusal."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    MobileViTConfig,
    MobileViTForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from service.spec.architectures import SmallCnn
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import tiny
from worker.data import Data, Split, UnusableData, measure_pixels
from worker.data.augment import EpochViews
from worker.data.augment.augmentation import Augmentation
from worker.data.augment.operation import Stored
from worker.data.samples import Samples
from worker.errors import JobFault
from worker.models import build_network, save_network
from worker.targets import Targets
from worker.tasks import TASKS
from worker.trained import TrainedNetwork, load_teacher

CPU = torch.device("cpu")
CLASSES = ["red", "green", "blue"]
NAMED = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}


def data_of(images: Tensor, *, max_value: float | None = None) -> Data:
    if images.dtype == torch.uint8:
        max_value = max_value or 255.0
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    return Data("image-classification", {"train": split, "test": split}, Targets.of_classes(CLASSES), max_value=max_value)


def images(channels: int = 3, *, height: int = 12, width: int = 12) -> Tensor:
    draws = np.random.default_rng(1).integers(0, 256, size=(6, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(draws)


def mobilevit(folder: Path, **settings: Any) -> Path:
    torch.manual_seed(0)
    config = MobileViTConfig(
        image_size=32, hidden_sizes=[8, 8, 8], neck_hidden_sizes=[4, 4, 4, 4, 4, 4, 8], num_attention_heads=2, **NAMED
    )
    MobileViTForImageClassification(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    MobileViTImageProcessorPil(**{**size, **settings}).save_pretrained(folder)
    return folder


def vit(folder: Path, **settings: Any) -> Path:
    torch.manual_seed(0)
    encoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 4}
    ViTForImageClassification(ViTConfig(**encoder, image_size=12, **NAMED)).save_pretrained(folder)
    ViTImageProcessorPil(**{"size": {"height": 12, "width": 12}, **settings}).save_pretrained(folder)
    return folder


def library_outputs(folder: Path, stored: Tensor, **options: Any) -> Tensor:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(list(stored.numpy()), input_data_format="channels_first", return_tensors="pt", **options)
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        outputs: Tensor = model(inputs["pixel_values"].to(torch.float32)).logits
    return outputs


def teacher(folder: Path, data: Data) -> TrainedNetwork:
    return load_teacher(folder, source="model:one", data=data)


def outputs(folder: Path, stored: Tensor, **options: Any) -> Tensor:
    data = data_of(stored, **options)
    return teacher(folder, data).outputs(data.splits["test"])


def refusal(folder: Path, stored: Tensor, **options: Any) -> str:
    with pytest.raises(JobFault) as raised:
        outputs(folder, stored, **options)
    return raised.value.message


@pytest.mark.parametrize("settings", [{}, {"do_flip_channel_order": False}, {"do_normalize": True, "do_rescale": False}])
def test_a_mobilevit_sees_its_channels_as_its_processor_flips_them(tmp_path: Path, settings: dict[str, Any]) -> None:
    squares = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    for channel in range(3):
        squares[channel, channel] = 255
    folder = mobilevit(tmp_path, **settings)
    torch.testing.assert_close(outputs(folder, squares), library_outputs(folder, squares), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [8, 12, 30])
def test_images_of_any_size_are_resized_as_the_processor_does(tmp_path: Path, side: int) -> None:
    stored, folder = images(height=side, width=side + 4), vit(tmp_path)
    torch.testing.assert_close(outputs(folder, stored), library_outputs(folder, stored), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [12, 20])
@pytest.mark.parametrize(("factor", "white"), [(1 / 255, None), (1.0, None), (16 / 255, 16.0)], ids=["unit", "floats", "digits"])
def test_pixels_of_other_ranges_are_read_as_the_8_bit_images_that_they_show(
    tmp_path: Path, side: int, factor: float, white: float | None
) -> None:
    stored, folder = images(height=side, width=side), vit(tmp_path)
    if white is not None:
        stored = stored // 17 * 17  # of which 16 levels and black are left
    other = stored * factor if white is None else (stored.float() * white / 255).round().to(torch.uint8)
    eight_bit = stored if white is None else (other.float() * 255 / white).round().to(torch.uint8)
    expected = library_outputs(folder, eight_bit)
    torch.testing.assert_close(outputs(folder, other, max_value=white), expected, atol=1e-2 if white else 1e-5, rtol=1e-4)


def test_a_processor_that_does_not_rescale_reads_floats_from_0_to_1(tmp_path: Path) -> None:
    folder = vit(tmp_path, do_rescale=False)
    floats = images() / 255
    expected = library_outputs(folder, floats)
    for stored in (floats, images(), floats * 255):
        torch.testing.assert_close(outputs(folder, stored), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_are_converted_as_the_library_converts_them(tmp_path: Path, channels: int) -> None:
    stored, folder = images(channels), vit(tmp_path, do_convert_rgb=True)
    torch.testing.assert_close(outputs(folder, stored), library_outputs(folder, stored), atol=1e-5, rtol=1e-4)


def test_standardised_images_are_refused_where_the_teacher_reads_pixels(tmp_path: Path) -> None:
    standardised = images() / 60.0 - 2
    said = refusal(vit(tmp_path), standardised)
    assert "the dataset's pixels are from -2 to 2.25, the network reads them from 0 to 255" in said
    assert "store the images as 8-bit ones (uint8), or as floats from 0 (black) to 1 (white)" in said
    stored_as_it_says = ((standardised + 2) * 60).round().to(torch.uint8)
    assert outputs(tmp_path, stored_as_it_says).shape == (6, 3)


def test_splits_of_different_ranges_are_refused_with_the_split(tmp_path: Path) -> None:
    data = data_of(images() / 255)
    data.splits["test"] = Split(images().to(torch.float32), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(UnusableData, match="pixels of the train split are from 0 to 1, those of others from 0 to 255"):
        TASKS[data.task].preprocessing(data, SmallCnn(name="small-cnn", width=2))


def test_a_size_that_the_network_cannot_read_is_refused_before_anything_trains(tmp_path: Path) -> None:
    folder, stored = vit(tmp_path, do_resize=False), images(height=16, width=16)
    said = refusal(folder, stored)
    assert "cannot read images of 3x16x16, as its image processor makes them" in said
    ViTImageProcessorPil(do_resize=True, size={"height": 12, "width": 12}).save_pretrained(folder)  # the hint
    assert outputs(folder, stored).shape == (6, 3)


def test_a_processor_that_its_library_cannot_run_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = vit(tmp_path, image_mean=[0.5, 0.5])
    said = refusal(folder, images())
    assert "its ViTImageProcessor cannot process the dataset's images: ValueError: mean must have 3 elements" in said


def test_colour_images_are_refused_by_a_network_of_grey_ones(tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    network = build_network(SmallCnn(name="small-cnn", width=2), input_shape=(1, 12, 12), num_outputs=3)
    preprocessing = measure_pixels(images(1), rescale_factor=1 / 255)
    save_network(network, folder, preprocessing=preprocessing, targets=Targets.of_classes(CLASSES))
    assert "reads images of 1x12x12, the dataset has 3x12x12" in refusal(folder, images())


ARCHITECTURES: dict[str, Any] = {"own": SmallCnn(name="small-cnn", width=2), "transformers": tiny("vit")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("trained", ["8 bits", "0 to 1", "0 to 255"])
@pytest.mark.parametrize("given", ["8 bits", "0 to 1", "0 to 255"])
def test_a_network_trained_here_reads_the_same_images_in_any_range(
    tmp_path: Path, architecture: str, trained: str, given: str
) -> None:
    by_range = {"8 bits": images(), "0 to 1": images() / 255, "0 to 255": images().to(torch.float32)}
    data = data_of(by_range[trained])
    factor = 1 / data.max_value if data.max_value else 1.0
    preprocessing = measure_pixels(by_range[trained], rescale_factor=factor, pixels=data.pixel_range)
    network = build_network(
        ARCHITECTURES[architecture], kind=kind_of(ARCHITECTURES[architecture]), input_shape=(3, 12, 12), num_outputs=3
    ).eval()
    save_network(network, tmp_path, preprocessing=preprocessing, targets=data.targets)
    with torch.no_grad():
        expected = network(preprocessing(by_range[trained]))
    torch.testing.assert_close(outputs(tmp_path, by_range[given]), expected, atol=1e-5, rtol=1e-4)
    if trained == given:
        assert torch.equal(outputs(tmp_path, by_range[given]), expected)


def test_a_view_that_changes_nothing_gives_the_outputs_of_the_whole_processor(tmp_path: Path) -> None:
    stored, folder = images(height=20, width=16), mobilevit(tmp_path)
    data = data_of(stored)
    loaded = teacher(folder, data)
    nothing = Augmentation((), len(stored), Stored())
    student = measure_pixels(stored, rescale_factor=1 / 255)
    samples = Samples.of(data.splits["train"], student, device=CPU, views=EpochViews(nothing, nothing, seed=0))
    batch = samples.batch(torch.arange(6))
    for view in (batch.stored_view, batch.stored_view.to(torch.float32)):  # type: ignore[union-attr]
        inputs = samples.view_for(replace(batch, stored_view=view), loaded.preprocessing)
        with torch.no_grad():
            torch.testing.assert_close(loaded.network(inputs), library_outputs(folder, stored), atol=1e-5, rtol=1e-4)
