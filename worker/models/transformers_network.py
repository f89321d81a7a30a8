"""Any classifier or causal language model of ``transformers`` as a plain module from one input tensor to its outputs.

Invariant: channels, image size, vocabulary and number of outputs come from the data; no code and no weights come from outside the
library and the folder. B batch, L tokens, T audio samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from service.spec.architectures import TransformersNetwork as TransformersArchitecture
from service.spec.data import EMBEDDING
from service.spec.shapes import InputShape, TokenShape
from service.spec.transformers_fit import CAUSAL, config_fields, samples_for, task_of
from worker.data.waveform import clip_lengths
from worker.models.embedding_network import EmbeddingNetwork
from worker.models.errors import UnfitArchitecture
from worker.models.hidden_layers import find_hidden_layers
from worker.models.language_network import LanguageNetwork
from worker.models.token_inputs import token_inputs

LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""The library has no error of its own for an invalid config: its constructors raise any of these."""


_CLASSES: dict[str, tuple[Any, str]] = {
    "image-classification": (AutoModelForImageClassification, "pixel_values"),
    "text-classification": (AutoModelForSequenceClassification, "input_ids"),
    "audio-classification": (AutoModelForAudioClassification, "input_values"),
    CAUSAL: (AutoModelForCausalLM, "input_ids"),
    EMBEDDING: (AutoModel, "input_ids"),
}


class TransformersNetwork(nn.Module):
    """Wraps an unchanged ``model`` of the library, whose ``save_pretrained`` writes the exported folder."""

    def __init__(
        self,
        model: Any,
        *,
        input_name: str,
        pad: int | None = None,
        has_token_types: bool = False,
        masks_waveforms: bool = False,
    ) -> None:
        """Wraps a text network with the id ``pad`` by which it looks for padding, and whether it gets token types.

        With ``masks_waveforms`` attention ignores the padding after a clip's end. The library requires that where the feature
        extractor has ``return_attention_mask``, and no mask elsewhere: networks trained without one do worse with it.
        """
        super().__init__()
        self.model, self.input_name, self.pad, self._masks_waveforms = model, input_name, pad, masks_waveforms
        self.has_token_types = has_token_types
        found = find_hidden_layers(model)
        path, layers = found if found is not None else ("", ())
        self.stage_layers = tuple(f"{path}.{index}" for index in range(len(layers)))
        self.embedding_layers = self.stage_layers[-1:]
        self._reads_spectrograms = model.config.model_type == "audio-spectrogram-transformer"
        self.reads_clips_alone = False
        """Whether each waveform is read without its padding, as the library's pipeline does: in as many passes as lengths."""

    def extra_repr(self) -> str:
        """The setting that is in neither weights nor config; it distinguishes two networks in the key of cached outputs."""
        return f"has_token_types={self.has_token_types}"

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps images (B, C, H, W), token ids (B, L), waveforms (B, T) or spectrograms (B, 1, F, M) to outputs (B, W)."""
        if self.reads_clips_alone:
            return self._read_alone(inputs)
        if self._reads_spectrograms:
            inputs = inputs.squeeze(1)
        named = {self.input_name: inputs}
        if self.pad is not None:
            named = token_inputs(self.model, inputs, pad=self.pad, has_token_types=self.has_token_types)
        elif self._masks_waveforms:
            places = torch.arange(inputs.shape[1], device=inputs.device)
            # A clip shorter than one frame keeps that frame, or its mean would be over nothing.
            lengths = clip_lengths(inputs).clamp(min=samples_for(1, self.model.config.to_dict()))
            named["attention_mask"] = (places < lengths.unsqueeze(1)).long()
        outputs: Tensor = self.model(**named).logits
        return outputs

    def _read_alone(self, waveforms: Tensor) -> Tensor:
        lengths = clip_lengths(waveforms).clamp(min=samples_for(1, self.model.config.to_dict()))
        outputs: list[Tensor] = [waveforms.new_empty(0)] * len(waveforms)
        for length in sorted(set(lengths.tolist())):
            rows = (lengths == length).nonzero().squeeze(1)
            for row, logits in zip(rows.tolist(), self.model(waveforms[rows, :length]).logits, strict=True):
                outputs[row] = logits
        return torch.stack(outputs)


def wrap(
    model: Any, *, task: str, masks_waveforms: bool = False, has_token_types: bool = False
) -> TransformersNetwork | LanguageNetwork | EmbeddingNetwork:
    """Wraps a model of the library's class for that task in a plain module."""
    if task == EMBEDDING:
        return EmbeddingNetwork(model, pad=model.config.pad_token_id, has_token_types=has_token_types)
    if task == CAUSAL:
        return LanguageNetwork(model)
    pad = model.config.pad_token_id if task == "text-classification" else None
    return TransformersNetwork(
        model,
        input_name=_CLASSES[task][1],
        pad=pad,
        has_token_types=has_token_types,
        masks_waveforms=masks_waveforms,
    )


def auto_class(task: str) -> Any:
    """Returns the library's class that builds and loads networks for that task."""
    return _CLASSES[task][0]


def build_transformers_network(
    architecture: TransformersArchitecture, *, input_shape: InputShape, num_outputs: int
) -> TransformersNetwork | LanguageNetwork | EmbeddingNetwork:
    """Builds the network that the spec describes, freshly initialised from torch's global generator.

    Raises:
        UnfitArchitecture: the library rejects the config, or the network cannot read such an input.
    """
    with _library_errors_as_unfit(architecture, input_shape):
        network = _construct(architecture, input_shape=input_shape, num_outputs=num_outputs)
        _try(network, input_shape=input_shape, num_outputs=_width(network, input_shape=input_shape, num_outputs=num_outputs))
    network.train()
    return network


def build_transformers_on_meta(
    architecture: TransformersArchitecture, *, input_shape: InputShape, num_outputs: int
) -> TransformersNetwork | LanguageNetwork | EmbeddingNetwork:
    """Builds the network on torch's ``meta`` device, without a trial forward pass.

    Raises:
        UnfitArchitecture: the library rejects the config.
    """
    with _library_errors_as_unfit(architecture, input_shape), torch.device("meta"):
        network = _construct(architecture, input_shape=input_shape, num_outputs=num_outputs)
    network.train()
    return network


def _construct(
    architecture: TransformersArchitecture, *, input_shape: InputShape, num_outputs: int
) -> TransformersNetwork | LanguageNetwork | EmbeddingNetwork:
    task = task_of(architecture.model_type) or "image-classification"
    # An empty list of architectures: the library reads it where a model type has several classifiers, and takes the first.
    fields = {**architecture.config, **_from_data(architecture, input_shape), "num_labels": num_outputs, "architectures": []}
    if isinstance(input_shape, TokenShape) and (input_shape.predicts_tokens or input_shape.is_embedded):
        task = CAUSAL if input_shape.predicts_tokens else EMBEDDING
        del fields["num_labels"]
    config = AutoConfig.for_model(architecture.model_type, **fields)
    model = auto_class(task).from_config(config, trust_remote_code=False)
    # Whatever its norm: a network that is built here is always trained with a mask.
    reads_waveforms = isinstance(input_shape, tuple) and len(input_shape) == 1
    return wrap(model, task=task, masks_waveforms=reads_waveforms)


def _width(network: nn.Module, *, input_shape: InputShape, num_outputs: int) -> int:
    """Width of the network's outputs."""
    if isinstance(network, EmbeddingNetwork):
        return network.width
    return input_shape.vocabulary if isinstance(input_shape, TokenShape) and input_shape.predicts_tokens else num_outputs


@contextmanager
def _library_errors_as_unfit(architecture: TransformersArchitecture, input_shape: InputShape) -> Iterator[None]:
    try:
        yield
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()}"
        raise UnfitArchitecture(
            f"transformers cannot build {architecture.model_type!r} with {architecture.config} for "
            f"{_described(input_shape)}: {reason[:500]}"
        ) from error


def _from_data(architecture: TransformersArchitecture, input_shape: InputShape) -> dict[str, Any]:
    """Config fields that the data determine."""
    known = config_fields(architecture.model_type)
    match input_shape:
        case TokenShape():
            return {
                "vocab_size": input_shape.vocabulary,
                # The embedding of ``pad_token_id`` is never trained, but that of an end token must be.
                "pad_token_id": None if input_shape.predicts_tokens and input_shape.pad == input_shape.end else input_shape.pad,
                "bos_token_id": input_shape.start,
                "eos_token_id": input_shape.end,
            }
        case (_, frames, mels) if "num_mel_bins" in known:
            return {"max_length": frames, "num_mel_bins": mels}
        case (channels, height, width):
            fields: dict[str, Any] = {"num_channels": channels}
            if "image_size" in known:
                is_square = height == width and "integer" in known["image_size"]["types"]
                fields["image_size"] = height if is_square else [height, width]
            return fields
    return {}


def _described(input_shape: InputShape) -> str:
    match input_shape:
        case TokenShape():
            return f"texts of {input_shape.length} tokens of {input_shape.vocabulary}"
        case (channels, height, width):
            return f"images of {height}x{width} pixels and {channels} channels"
    return f"waveforms of {input_shape[0]} samples"


def _try(network: nn.Module, *, input_shape: InputShape, num_outputs: int) -> None:
    """Runs two blank samples forward: only that detects a kernel larger than the image, or a window that does not fit."""
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = network(blank(input_shape, 2))
    if outputs.shape != (2, num_outputs):
        raise ValueError(f"the outputs have shape {tuple(outputs.shape[1:])}, not ({num_outputs},)")


def blank(input_shape: InputShape, count: int) -> Tensor:
    """Makes ``count`` blank inputs of that shape, without any padding token."""
    if isinstance(input_shape, TokenShape):
        any_token = next(token for token in range(input_shape.vocabulary) if token != input_shape.pad)
        return torch.full((count, input_shape.length), any_token)
    return torch.zeros(count, *input_shape)
