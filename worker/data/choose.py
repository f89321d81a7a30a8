"""Chooses the preprocessing of a network that the job trains, by the data and the architecture."""

from dataclasses import replace

from service.spec.architectures import Architecture
from service.spec.fit import usual_features
from service.spec.inputs import Features, TokenizerSpec
from service.spec.tasks import TASKS
from worker.data.dataset import Data
from worker.data.errors import UnusableData
from worker.data.language_preprocessing import LanguagePreprocessing, train_language_preprocessing
from worker.data.pixels import measure_pixels
from worker.data.preprocessing import Preprocessing
from worker.data.sound import measure_sound
from worker.data.text import TextPreprocessing, train_text_preprocessing


def choose_preprocessing(
    data: Data,
    architecture: Architecture,
    *,
    tokenizer: TokenizerSpec | None = None,
    features: Features | None = None,
    teachers: Preprocessing | None = None,
) -> Preprocessing:
    """Measures or trains a preprocessing on the training split alone. A text network without ``tokenizer`` gets its teacher's.

    Raises:
        UnusableData: the training split is too small, or texts have neither a tokenizer nor a teacher's preprocessing.
    """
    inputs = data.splits["train"].inputs
    match TASKS[data.task].input_kind:
        case "image":
            factor = 1 / data.max_value if data.max_value else 1.0
            return measure_pixels(inputs, rescale_factor=factor, pixels=data.pixel_range)
        case "audio":
            return measure_sound(inputs, features or usual_features(architecture), most_seconds=data.clip_seconds)
        case "text" if data.task == "causal-lm" and tokenizer is not None:
            return train_language_preprocessing(data, tokenizer)
        case "text" if tokenizer is not None:
            return replace(train_text_preprocessing(inputs, tokenizer), is_embedded=data.targets.are_embeddings)
        case "text" if isinstance(teachers, TextPreprocessing):
            # A student learns its teacher's embeddings without the prompt.
            return replace(teachers, prompt="") if teachers.prompt else teachers
        case "text" if isinstance(teachers, LanguagePreprocessing):
            return teachers
    raise UnusableData("a network that is trained on texts needs a tokenizer: {train: wordpiece, vocab_size: 8000}, say")
