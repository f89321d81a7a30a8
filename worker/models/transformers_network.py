"""Any classifier of ``transformers`` as a plain module from one tensor to its outputs. B batch, L tokens, T audio samples."""

from typing import Any

import torch
from torch import Tensor, nn

from service.spec.transformers_fit import samples_for
from worker.data.audio.waveform import clip_lengths
from worker.models.hidden_layers import find_hidden_layers
from worker.models.token_inputs import token_inputs


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
