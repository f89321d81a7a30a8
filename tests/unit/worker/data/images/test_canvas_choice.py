"""The canvas that a given network's processor says: what it makes of it is what it makes of whole images, or it is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, ConvNextImageProcessorPil, ViTImageProcessorPil

from service.formats import EncodedImage
from service.formats.media.image_file import check_image
from service.spec.canvas import ImageFit
from tests.unit.formats.files import some_images
from worker.data.errors import NoCanvas, UnusableData
from worker.data.images.canvas import Canvas
from worker.data.images.canvas_choice import choose_canvas, examples_of, on_canvas, read_geometry


def file_of(*shape: int) -> EncodedImage:
    buffer = io.BytesIO()
    Image.fromarray(some_images(*shape)).save(buffer, format="PNG")
    return check_image(buffer.getvalue(), place="x")[0]


FILES = [file_of(40, 33, 3), file_of(33, 41, 3), file_of(20, 90, 3), file_of(64, 17, 3), file_of(9, 12, 3)]


def chosen(spec: ImageFit | None, networks: Any) -> tuple[Canvas, str]:
    sizes = {(file.height, file.width) for file in FILES}
    return choose_canvas(sizes, {3}, spec, networks, examples=lambda: examples_of(FILES))


def given(folder: Path, processor: Any) -> Any:
    processor.save_pretrained(folder)
    return {"teacher": found} if (found := read_geometry(folder)) is not None else {}


@pytest.mark.parametrize(
    ("processor", "canvas"),
    [
        (ViTImageProcessorPil(size={"height": 12, "width": 16}), Canvas(12, 16, 3, "stretch", "bilinear")),
        (
            CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
            Canvas(20, 20, 3, "crop", "bicubic"),
        ),
        (ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.8, resample=2), Canvas(20, 20, 3, "crop", "bilinear")),
    ],
)
def test_a_processor_that_fits_to_one_size_is_the_canvas(tmp_path: Path, processor: Any, canvas: Canvas) -> None:
    found, whose = chosen(None, given(tmp_path, processor))
    assert found == canvas
    assert whose == "the size that the image processor of the teacher reads"


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessorPil(size={"shortest_edge": 20}, do_center_crop=False),
        CLIPImageProcessorPil(size={"shortest_edge": 21}, crop_size={"height": 16, "width": 16}),
        ViTImageProcessorPil(size={"height": 12, "width": 12}, do_resize=False),
    ],
    ids=["of any length", "an odd frame", "resizes nothing"],
)
def test_a_processor_that_does_otherwise_with_whole_images_is_refused(tmp_path: Path, processor: Any) -> None:
    with pytest.raises(NoCanvas, match=r"the image processor of the teacher makes something else .* name the size"):
        chosen(None, given(tmp_path, processor))
    found, whose = chosen(ImageFit(size=[10, 12]), given(tmp_path, processor))
    assert (found, whose) == (Canvas(10, 12, 3), "dataset.image.size")


def test_of_several_networks_the_largest_size_counts(tmp_path: Path) -> None:
    small = given(tmp_path / "small", ViTImageProcessorPil(size={"height": 8, "width": 8}))["teacher"]
    large = given(tmp_path / "large", ViTImageProcessorPil(size={"height": 16, "width": 16}))["teacher"]
    found, whose = chosen(None, {"teacher": small, "student": large})
    assert (found.height, whose) == (16, "the size that the image processor of the student reads")


def test_without_a_network_the_size_is_asked_for() -> None:
    with pytest.raises(NoCanvas, match=r"heights from 9 to 64 and widths from 12 to 90, .* image: \{size: 9\}"):
        chosen(None, {})


def test_images_of_one_size_keep_it_where_nothing_says_another() -> None:
    found, _ = choose_canvas({(9, 12)}, {1}, ImageFit(fit="pad"), {}, examples=list)
    assert found == Canvas(9, 12, 1, "pad")


def test_what_is_no_file_or_of_other_pixels_is_refused() -> None:
    with pytest.raises(UnusableData, match="arrays of one size"):
        on_canvas(np.zeros((2, 3, 8, 8), np.uint8), Canvas(8, 8, 3), source="file:a")
    with pytest.raises(UnusableData, match="images of 3 channels, the dataset of 1"):
        on_canvas(FILES, Canvas(8, 8, 1), source="file:a")
