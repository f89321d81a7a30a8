"""Classes and numbers of images."""

from textwrap import dedent

from torch import nn

from service.formats.media.image_file import MODE_OF_CHANNELS
from service.spec.architectures import Architecture
from service.spec.canvas import ImageFit
from service.spec.inputs import Features, TokenizerSpec
from service.spec.report import Report
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, measure_pixels
from worker.models import LoadedNetwork
from worker.models.classifiers import ImageClassifiers
from worker.tasks.card_text import library_program, outputs_read, own_program
from worker.tasks.fit_images import fit_images, white_warnings
from worker.tasks.labelled import LabelledTask

_OWN_IMPORTS = "import numpy\nimport torch\n{images}from stillhouse import load_network\n"
_OWN_READER = """\
    {pixels}
    images = torch.from_numpy(pixels.reshape(1, *pixels.shape[:2], -1)).permute(0, 3, 1, 2)
    inputs = student.preprocessing(images)
    """
_LIBRARY_READER = """\
    import numpy
    {images}from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained("student")
    student = AutoModelForImageClassification.from_pretrained("student").eval()
    {pixels}
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    inputs = processor(pixels, input_data_format="channels_last", return_tensors="pt").to(student.dtype)
    """
_STORED = {
    255.0: 'pixels = numpy.array(ImageOps.exif_transpose(Image.open("image.png")))  # of the size and mode of its data',
    1.0: 'pixels = numpy.array(ImageOps.exif_transpose(Image.open("image.png")), dtype="float32") / 255  # as its data were',
}
"""How a file's pixels are made those of the data, by their white."""
_FITTED = {
    "crop": "image = ImageOps.fit(image, ({width}, {height}), Image.Resampling.{resampling})",
    "pad": """\
scale = min({width} / image.width, {height} / image.height)
inner = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.{resampling})
image = Image.new(inner.mode, ({width}, {height}))
image.paste(inner, (({width} - inner.width + 1) // 2, ({height} - inner.height + 1) // 2))""",
    "stretch": "image = image.resize(({width}, {height}), Image.Resampling.{resampling})",
}
"""How a file of any size is made one of the size that the data were fitted to, as they were."""
_STORED_OTHERWISE = 'pixels = numpy.load("image.npy")  # of the size and range of its data'


class ImageClassification(LabelledTask):
    """Networks that map images to outputs of their targets."""

    name = "image-classification"
    network = ImageClassifiers("image-classification")

    def fit_inputs(self, loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
        return fit_images(loaded, data, source=source)

    def teacher_warnings(self, loaded: LoadedNetwork, data: Data, *, source: str) -> tuple[WarningMessage, ...]:
        return white_warnings(loaded, data, source=source)

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        factor = 1 / data.max_value if data.max_value else 1.0
        images = data.splits["train"].inputs
        return measure_pixels(images, rescale_factor=factor, pixels=data.pixel_range, canvas=data.canvas)

    def onnx_form(self, network: nn.Module, preprocessing: Preprocessing | None, data: Data) -> tuple[nn.Module, tuple[str, ...]]:
        return network, ("pixel_values",)

    def data_words(self, report: Report) -> str:
        words = super().data_words(report)
        if report.data.input_shape is None:
            return words
        shape, pixels = "×".join(map(str, report.data.input_shape)), report.data.pixel_range
        ends = f", from {pixels[0]:g} (black) to {pixels[1]:g} (white)" if pixels else ""
        return (
            f"{words} Images are of {shape} (channels, height, width){ends}; the pixels' mean and "
            "standard deviation are in `student/preprocessor_config.json`."
        )

    def usage(self, report: Report, *, is_own: bool) -> str:
        white = (report.data.pixel_range or [0.0])[-1]
        pixels = (
            _STORED.get(white, _STORED_OTHERWISE) if report.data.image_fit is None else _fitted(report, report.data.image_fit)
        )
        images = "from PIL import Image, ImageOps\n" if white in _STORED else ""

        def of_file(code: str) -> str:
            return dedent(code).replace("{images}", images).replace("{pixels}", pixels)

        if is_own:
            return own_program(of_file(_OWN_IMPORTS), of_file(_OWN_READER), read=outputs_read(report))
        return library_program(of_file(_LIBRARY_READER), read=outputs_read(report))


def _fitted(report: Report, fit: ImageFit) -> str:
    height, width = fit.sides or (0, 0)
    mode = MODE_OF_CHANNELS[(report.data.input_shape or [3])[0]]
    resampling = str(fit.interpolation).upper()
    fitted = _FITTED[fit.fit or "crop"].format(height=height, width=width, resampling=resampling)
    return (
        f'image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")\n'
        f"{fitted}\n"
        "pixels = numpy.array(image)  # as its data were"
    )
