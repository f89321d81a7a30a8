"""The files of a network's preprocessing, by modality: pixels, tokens, sound."""

import json
from pathlib import Path
from typing import Any

from service.spec.data import EMBEDDING
from service.spec.shapes import InputShape
from service.spec.transformers_fit import CAUSAL
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.log_mel import LogMel
from worker.data.pixels import PixelPreprocessing
from worker.data.preprocessing import Preprocessing
from worker.data.processor_pixels import ProcessorPixels
from worker.data.sound import SoundPreprocessing
from worker.data.text import TextPreprocessing
from worker.data.tokenization import save_tokenizer
from worker.models.errors import UnreadableNetwork
from worker.models.feature_extractor_config import (
    FEATURE_EXTRACTOR_FILE,
    read_feature_extractor_config,
    write_feature_extractor_config,
)
from worker.models.processor_config import read_own_processor_config, read_processor_config, write_processor_config
from worker.models.text_files import read_text_preprocessing

_LENGTH = "num_samples"
"""A field for the length of the clips, beside those that the library reads."""
_USUAL_SECONDS = 10


def write_preprocessing(
    folder: Path, preprocessing: Preprocessing, *, input_shape: InputShape, has_token_types: bool = False
) -> None:
    """Writes the files from which the network's library, or this project, computes the network's inputs."""
    match preprocessing, input_shape:
        case PixelPreprocessing(), (channels, height, width):
            write_processor_config(folder, preprocessing, input_shape=(channels, height, width))
        case ProcessorPixels(), _:
            preprocessing.processor.save_pretrained(folder)
        case TextPreprocessing() | LanguagePreprocessing(), _:
            length = preprocessing.max_length
            save_tokenizer(preprocessing.tokenizer, folder, max_length=length, has_token_types=has_token_types)
        case SoundPreprocessing(), _:
            write_feature_extractor_config(folder, preprocessing.features)
            _update(folder, **{_LENGTH: preprocessing.num_samples})
        case _:
            raise TypeError(f"{type(preprocessing).__name__} has no files")


def read_own_preprocessing(folder: Path, *, input_shape: tuple[int, int, int]) -> Preprocessing:
    """Reads the files of :func:`write_preprocessing` beside one of the project's own networks.

    Raises:
        UnreadableNetwork: a file is missing or broken.
    """
    if "feature_extractor_type" in _document(folder):
        return _read_sound(folder, input_shape)
    return read_own_processor_config(folder, num_channels=input_shape[0])


def read_preprocessing(folder: Path, config: Any, *, task: str) -> tuple[Preprocessing, InputShape]:
    """Reads the preprocessing beside any network of ``transformers``, and the shape of the inputs that it makes.

    Raises:
        UnreadableNetwork: a file is missing or broken.
    """
    if task in ("text-classification", CAUSAL, EMBEDDING):
        text = read_text_preprocessing(folder, config, task=task)
        return text, text.input_shape([])
    if task == "audio-classification":
        frames, mels = getattr(config, "max_length", 0), getattr(config, "num_mel_bins", None)
        sound = _read_sound(folder, () if mels is None else (1, frames, mels))
        return sound, sound.input_shape([])
    channels = int(getattr(config, "num_channels", 3))
    preprocessing, output_size = read_processor_config(folder, num_channels=channels)
    return preprocessing, (channels, *_image_size(config, output_size))


def _read_sound(folder: Path, input_shape: tuple[int, ...]) -> SoundPreprocessing:
    features = read_feature_extractor_config(folder)
    if isinstance(features, LogMel):
        if input_shape and input_shape != (1, features.num_frames, features.num_mels):
            raise UnreadableNetwork(
                f"{FEATURE_EXTRACTOR_FILE} makes spectrograms of {features.num_frames} by {features.num_mels}, and the network "
                f"reads {' by '.join(map(str, input_shape[1:]))}: save both of one network"
            )
        return SoundPreprocessing(features, features.num_samples)
    length = _document(folder).get(_LENGTH)
    if isinstance(length, int) and length > 0:
        return SoundPreprocessing(features, length)
    return SoundPreprocessing(features, _USUAL_SECONDS * features.rate, is_of_padded=False)


def _document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / FEATURE_EXTRACTOR_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableNetwork(f"{FEATURE_EXTRACTOR_FILE} cannot be read: {error}") from error
    return document if isinstance(document, dict) else {}


def _update(folder: Path, **fields: Any) -> None:
    text = json.dumps(_document(folder) | fields, indent=2)
    (folder / FEATURE_EXTRACTOR_FILE).write_text(text + "\n", encoding="utf-8")


def _image_size(config: Any, output_size: tuple[int, int] | None) -> tuple[int, int]:
    # The processor's size comes first: a convolutional network's config repeats the default size of its class, whatever size the
    # network was trained on.
    if output_size is not None:
        return output_size
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise UnreadableNetwork("neither preprocessor_config.json (size) nor config.json (image_size) says the images' size")
