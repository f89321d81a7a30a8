"""Images of any size on a canvas: as Pillow and as the image processors of transformers fit them."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, CLIPImageProcessorPil, ViTImageProcessorPil

from service.formats import EncodedImage
from service.formats.media.image_file import check_image
from service.spec.canvas import Fit, Interpolation
from tests.unit.formats.files import some_images
from worker.data import measure_pixels
from worker.data.images.canvas import Canvas, WholeImages, fit_images
from worker.data.images.canvas_choice import read_geometry
from worker.data.images.pixel_range import PixelRange
from worker.models.processor_config import read_processor_config

SIZES = [(40, 30), (30, 40), (17, 63), (64, 16), (24, 20), (5, 7), (480, 641), (20, 24)]
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def file_of(image: Image.Image) -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return check_image(buffer.getvalue(), place="x")[0]


PHOTOS = [Image.fromarray(some_images(*size, 3, seed=number)) for number, size in enumerate(SIZES)]
FILES = [file_of(photo) for photo in PHOTOS]


def stacked(images: list[Any]) -> Any:
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_a_square_is_cut_as_transformers_resizes_and_cuts_it(interpolation: Interpolation) -> None:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 24},
        crop_size={"height": 24, "width": 24},
        resample=RESAMPLING[interpolation],
        do_rescale=False,
        do_normalize=False,
    )
    expected = processor(PHOTOS, return_tensors="np")["pixel_values"]
    made = fit_images(FILES, Canvas(24, 24, 3, "crop", interpolation))
    np.testing.assert_array_equal(made.numpy(), expected)


def test_images_are_stretched_as_transformers_stretches_them() -> None:
    processor = ViTImageProcessorPil(size={"height": 20, "width": 28}, do_rescale=False, do_normalize=False)
    expected = processor(PHOTOS, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(fit_images(FILES, Canvas(20, 28, 3, "stretch")).numpy(), expected)


@pytest.mark.parametrize("size", [(24, 24), (18, 31), (50, 9)])
def test_images_are_padded_as_pillow_pads_them_but_for_the_rounding_of_a_pixel(size: tuple[int, int]) -> None:
    height, width = size
    made = fit_images(FILES, Canvas(height, width, 3, "pad", "bicubic")).numpy()
    for image, photo in zip(made, PHOTOS, strict=True):
        padded = ImageOps.pad(photo, (width, height), Image.Resampling.BICUBIC)
        inside, theirs = Image.fromarray(image.transpose(1, 2, 0)).getbbox(), padded.getbbox()
        assert inside is not None
        assert theirs is not None
        np.testing.assert_allclose(inside, theirs, atol=1)


@pytest.mark.parametrize(
    ("fit", "size"), [("crop", (24, 24)), ("pad", (24, 24)), ("pad", (18, 31)), ("pad", (31, 18)), ("stretch", (18, 31))]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_processor_that_is_saved_fits_images_as_the_data_were(
    tmp_path: Path, fit: Fit, size: tuple[int, int], channels: int
) -> None:
    canvas = Canvas(*size, channels, fit, "bicubic")
    photos = [photo.convert("L") if channels == 1 else photo for photo in PHOTOS]
    fitted = fit_images([file_of(photo) for photo in photos], canvas)
    preprocessing = measure_pixels(fitted, rescale_factor=1 / 255, canvas=canvas)
    preprocessing.save(tmp_path, input_shape=(channels, *size))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    pixels = [np.atleast_3d(np.asarray(photo)) for photo in photos]
    made = processor(pixels, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(made, preprocessing(fitted), rtol=1e-4, atol=1e-4)
    assert read_processor_config(tmp_path, num_channels=channels)[1] == size
    geometry = read_geometry(tmp_path)
    assert geometry is not None
    assert (geometry.height, geometry.width, geometry.fit) == (*size, fit)


@pytest.mark.parametrize("size", [(24, 36), (36, 24)])
def test_an_oblong_canvas_is_covered_by_the_middle_of_each_image(size: tuple[int, int]) -> None:
    ramp = Image.fromarray(np.add.outer(np.arange(60), np.arange(90)).astype(np.uint8))
    made = fit_images([file_of(ramp), file_of(ramp.transpose(Image.Transpose.TRANSPOSE))], Canvas(*size, 1))
    middle = (59 + 89) / 2
    assert made.shape == (2, 1, *size)
    assert all(abs(image.float().mean().item() - middle) < 1.5 for image in made)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_an_image_of_the_canvas_size_stays_as_it_is(fit: Fit) -> None:
    np.testing.assert_array_equal(fit_images(FILES[4:5], Canvas(24, 20, 3, fit)).numpy(), stacked(PHOTOS[4:5]))


def test_grey_and_transparent_images_become_rgb() -> None:
    pixels = some_images(6, 5, 4)
    grey, clear = Image.fromarray(pixels[..., 0]), Image.fromarray(pixels)
    made = fit_images([file_of(grey), file_of(clear), FILES[0]], Canvas(6, 5, 3))
    np.testing.assert_array_equal(made[0].numpy(), np.broadcast_to(pixels[..., 0], (3, 6, 5)))
    np.testing.assert_array_equal(made[1].numpy(), pixels[..., :3].transpose(2, 0, 1))


def test_a_window_of_the_whole_image_is_stretched_to_the_canvas() -> None:
    windows = torch.tensor([[3, 5, 20, 10], [0, 0, 30, 40]])
    made = fit_images(FILES[:2], Canvas(12, 16, 3, "crop", "bicubic"), windows)
    expected = [
        PHOTOS[0].crop((5, 3, 15, 23)).resize((16, 12), Image.Resampling.BICUBIC),
        PHOTOS[1].resize((16, 12), Image.Resampling.BICUBIC),
    ]
    np.testing.assert_array_equal(made.numpy(), stacked(expected))


def test_whole_images_are_taken_by_row_and_travel_to_other_processes() -> None:
    whole = pickle.loads(pickle.dumps(WholeImages(FILES, Canvas(8, 9, 3))))
    chosen = whole.take(torch.tensor([6, 1]))
    assert chosen.sides.tolist() == [[480, 641], [30, 40]]
    assert torch.equal(chosen.fitted(), whole.fitted()[[6, 1]])
    assert whole[2:].sides.tolist() == [list(size) for size in SIZES[2:]]


def test_the_processor_of_a_network_fits_files_of_any_size_as_its_canvas_did(tmp_path: Path) -> None:
    canvas = Canvas(24, 24, 3, "crop", "bicubic")
    stored = fit_images(FILES, canvas)
    preprocessing = measure_pixels(stored, rescale_factor=1 / 255, pixels=PixelRange(0.0, 255.0), canvas=canvas)
    preprocessing.save(tmp_path, input_shape=(3, 24, 24))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    np.testing.assert_allclose(processor(PHOTOS, return_tensors="np")["pixel_values"], preprocessing(stored), atol=1e-5)
    own, size = read_processor_config(tmp_path, num_channels=3)
    assert size == (24, 24)
    torch.testing.assert_close(own(stored), preprocessing(stored))
