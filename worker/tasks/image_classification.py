"""Classes and numbers of images."""

from service.spec.architectures import Architecture
from service.spec.inputs import Features, TokenizerSpec
from worker.data import Data, Preprocessing, measure_pixels
from worker.tasks.labelled import LabelledTask


class ImageClassification(LabelledTask):
    """Networks that map images to outputs of their targets."""

    name = "image-classification"

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
        return measure_pixels(data.splits["train"].inputs, rescale_factor=factor, pixels=data.pixel_range)
