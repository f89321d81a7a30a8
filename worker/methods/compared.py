"""Features of a batch in the form in which a method compares them. Invariant: padding has no influence on a loss.

B batch, L tokens, D width, C channels, H height, W width, n tokens of a batch without padding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from worker.methods.batch import DistillationBatch, Loss, Outputs
from worker.methods.layer_pairs import LayerPairs


def features(batch: DistillationBatch, pairs: LayerPairs) -> list[tuple[Tensor, Tensor]]:
    """Lists each pair of layers, the student's first: (B, …), tokens (B, L, D) with zeros in place of padding."""
    return _paired(batch, pairs, _without_padding)


def pooled_features(batch: DistillationBatch, pairs: LayerPairs) -> list[tuple[Tensor, Tensor]]:
    """Lists each pair of layers as vectors (B, C): see :func:`pooled`."""
    return _paired(batch, pairs, pooled)


def token_features(batch: DistillationBatch, pairs: LayerPairs) -> list[tuple[Tensor, Tensor]]:
    """Lists each pair of layers, tokens (B, L, D) as a row each, (n, D), and anything else as it is.

    Student and teacher read the same tokens; only the padding of their batches may differ in length.
    """
    return _paired(batch, pairs, _token_rows)


def hidden_states(batch: DistillationBatch, pairs: LayerPairs) -> list[tuple[Tensor, Tensor]]:
    """Lists each pair of layers as vectors: (n, D), one for each token, or (B, C), one for each sample of anything else."""
    return _paired(batch, pairs, _as_vectors)


def pooled(outputs: Outputs, layer: str) -> Tensor:
    """Averages maps (B, C, H, W) over their pixels, and tokens (B, L, D) over the tokens, to a vector (B, C) for each sample."""
    feature = outputs.features[layer]
    if feature.dim() == 4:
        return feature.mean(dim=(2, 3))
    if feature.dim() != 3:
        return feature.flatten(1)
    token_mask = _token_mask(outputs, feature)
    if token_mask is None:
        return feature.mean(dim=1)
    return (feature * token_mask.unsqueeze(-1)).sum(dim=1) / token_mask.sum(dim=1, keepdim=True).clamp(min=1)


def over_layers(pairs: LayerPairs, loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Builds the sum over the pairs of layers of a loss on :func:`features`."""
    return lambda batch: torch.stack([loss(ours, theirs) for ours, theirs in features(batch, pairs)]).sum()


def over_vectors(pairs: LayerPairs, loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Builds the sum over the pairs of layers of a loss on :func:`pooled_features`."""
    return lambda batch: torch.stack([loss(ours, theirs) for ours, theirs in pooled_features(batch, pairs)]).sum()


def is_map(shape: torch.Size) -> bool:
    """Whether a layer of this shape, without the batch, gives maps (C, H, W)."""
    return len(shape) == 3


def pooled_width(shape: torch.Size) -> int:
    """Width of the vector that :func:`pooled` computes from a layer of this shape, without the batch."""
    return shape[0] if len(shape) != 2 else shape[1]


def match_sizes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the larger of two maps (B, C, H, W) down to the smaller's size; leaves vectors as they are."""
    if first.dim() != 4 or second.dim() != 4 or first.shape[-2:] == second.shape[-2:]:
        return first, second
    size = torch.Size(min(pair) for pair in zip(first.shape[-2:], second.shape[-2:], strict=True))
    return resized(first, size), resized(second, size)


def resized(maps: Tensor, size: torch.Size) -> Tensor:
    """Resizes maps (B, C, H, W): averages to a smaller size, and repeats the nearest pixels for a larger one."""
    if maps.shape[-2:] == size:
        return maps
    if size[0] <= maps.shape[-2] and size[1] <= maps.shape[-1]:
        return functional.adaptive_avg_pool2d(maps, (size[0], size[1]))
    return functional.interpolate(maps, (size[0], size[1]), mode="nearest")


def concatenate_padded(pieces: Sequence[Tensor]) -> Tensor:
    """Concatenates pieces (B, …); those of tokens, (B, L, …), may differ in L, and the shorter ones are padded with zeros."""
    longest = max(piece.shape[1] for piece in pieces) if pieces[0].dim() in (2, 3) else 0
    return torch.cat([_lengthened(piece, longest) if piece.dim() > 1 else piece for piece in pieces])


def _lengthened(piece: Tensor, length: int) -> Tensor:
    missing = length - piece.shape[1]
    return functional.pad(piece, (*[0, 0] * (piece.dim() - 2), 0, missing)) if missing > 0 else piece


def _paired(batch: DistillationBatch, pairs: LayerPairs, form: Callable[[Outputs, str], Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [
        (form(batch.student, one), form(batch.teacher_outputs, other))
        for one, other in zip(pairs.student, pairs.teacher, strict=True)
    ]


def _token_mask(outputs: Outputs, feature: Tensor) -> Tensor | None:
    """(B, L), True for rows of a feature that are tokens without padding; None if it has no row for each token, or no padding."""
    token_mask = outputs.token_mask
    return token_mask if token_mask is not None and feature.dim() == 3 and feature.shape[:2] == token_mask.shape else None


def _without_padding(outputs: Outputs, layer: str) -> Tensor:
    feature = outputs.features[layer]
    token_mask = _token_mask(outputs, feature)
    return feature if token_mask is None else feature * token_mask.unsqueeze(-1)


def _as_vectors(outputs: Outputs, layer: str) -> Tensor:
    return _token_rows(outputs, layer) if outputs.features[layer].dim() == 3 else pooled(outputs, layer)


def _token_rows(outputs: Outputs, layer: str) -> Tensor:
    feature = outputs.features[layer]
    if feature.dim() != 3:
        return feature
    token_mask = _token_mask(outputs, feature)
    return feature.flatten(0, 1) if token_mask is None else feature[token_mask]
