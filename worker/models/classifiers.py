"""Classifiers of ``transformers``, of images, texts and sound, and their folders. Their outputs may also be numbers."""

from pathlib import Path
from typing import Any

from torch import nn

from service.spec.problem_type import MULTI_LABEL, NUMBERS, ONE_LABEL
from service.spec.shapes import InputShape, TokenShape
from service.spec.transformers_fit import config_fields
from worker.data.audio.waveform import RawWaveform
from worker.data.preprocessing import Preprocessing
from worker.models.feature_extractor_config import is_feature_extractor, read_sound_preprocessing
from worker.models.labels_file import LABELS_FILE, read_labels, targets_of_config
from worker.models.network_kind import LoadedNetwork, NetworkKind, token_fields
from worker.models.processor_config import read_image_preprocessing, read_own_processor_config
from worker.models.text_files import can_read_token_types, has_token_types, read_classifier_preprocessing
from worker.models.transformers_network import TransformersNetwork
from worker.models.without_progress import no_progress_bars
from worker.targets import Targets


class Classifiers(NetworkKind):
    """Networks with one output for each class of a target, or for its number."""

    def _targets(self, folder: Path, config: Any) -> Targets:
        has_labels = (folder / LABELS_FILE).is_file()
        return read_labels(folder, num_outputs=config.num_labels) if has_labels else targets_of_config(config)

    def write(self, network: Any, folder: Path, *, preprocessing: Preprocessing, targets: Targets) -> None:
        names = dict(enumerate(targets.classes))
        config = network.model.config
        config.id2label, config.label2id = names, {name: index for index, name in names.items()}
        if all(target.classes is None for target in targets):
            # Without it, the library's pipelines put a single number through a sigmoid, and several through a softmax.
            config.problem_type = NUMBERS
        elif targets.has_classes_alone:
            # Those pipelines put several classes through a softmax, unless the config says that each is a yes or no.
            config.problem_type = MULTI_LABEL if targets.each[0].is_multi_label else ONE_LABEL if config.problem_type else None
        with no_progress_bars():
            network.model.save_pretrained(folder)


class ImageClassifiers(Classifiers):
    """Networks that read pixels (B, C, H, W)."""

    def config_fields(self, model_type: str, input_shape: InputShape, *, num_outputs: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"num_labels": num_outputs}
        match input_shape:
            case (channels, height, width):
                fields["num_channels"] = channels
                known = config_fields(model_type)
                if "image_size" in known:
                    is_square = height == width and "integer" in known["image_size"]["types"]
                    fields["image_size"] = height if is_square else [height, width]
        return fields

    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        return TransformersNetwork(model, input_name="pixel_values")

    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> LoadedNetwork:
        reads, input_shape = read_image_preprocessing(folder, model.config)
        network = TransformersNetwork(model, input_name="pixel_values")
        return LoadedNetwork(network, reads, targets or self._targets(folder, model.config), input_shape, self)

    def owns(self, folder: Path) -> bool:
        return not is_feature_extractor(folder)

    def read_own_preprocessing(self, folder: Path, *, input_shape: tuple[int, int, int]) -> Preprocessing:
        return read_own_processor_config(folder, num_channels=input_shape[0])


class TextClassifiers(Classifiers):
    """Networks that read token ids (B, L)."""

    def config_fields(self, model_type: str, input_shape: InputShape, *, num_outputs: int) -> dict[str, Any]:
        return {"num_labels": num_outputs, **token_fields(input_shape)}

    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        has_types = isinstance(input_shape, TokenShape) and input_shape.has_types and can_read_token_types(model.config)
        return TransformersNetwork(model, input_name="input_ids", pad=model.config.pad_token_id, has_token_types=has_types)

    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> LoadedNetwork:
        reads = read_classifier_preprocessing(folder, model.config)
        has_types = has_token_types(reads.tokenizer, model.config.model_type)
        network = TransformersNetwork(model, input_name="input_ids", pad=model.config.pad_token_id, has_token_types=has_types)
        return LoadedNetwork(network, reads, targets or self._targets(folder, model.config), reads.input_shape([]), self)


class AudioClassifiers(Classifiers):
    """Networks that read waveforms (B, T) or spectrograms (B, 1, F, M)."""

    def config_fields(self, model_type: str, input_shape: InputShape, *, num_outputs: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"num_labels": num_outputs}
        match input_shape:
            case (_, frames, mels):
                fields |= {"max_length": frames, "num_mel_bins": mels}
        return fields

    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        # Whatever its norm: a network that is built here is always trained with a mask.
        reads_waveforms = isinstance(input_shape, tuple) and len(input_shape) == 1
        return TransformersNetwork(model, input_name="input_values", masks_waveforms=reads_waveforms)

    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> LoadedNetwork:
        config = model.config
        frames, mels = getattr(config, "max_length", 0), getattr(config, "num_mel_bins", None)
        reads = read_sound_preprocessing(folder, () if mels is None else (1, frames, mels))
        masks = isinstance(reads.features, RawWaveform) and reads.features.masked
        network = TransformersNetwork(model, input_name="input_values", masks_waveforms=masks)
        return LoadedNetwork(network, reads, targets or self._targets(folder, config), reads.input_shape([]), self)

    def owns(self, folder: Path) -> bool:
        return is_feature_extractor(folder)

    def read_own_preprocessing(self, folder: Path, *, input_shape: tuple[int, int, int]) -> Preprocessing:
        return read_sound_preprocessing(folder, input_shape)
