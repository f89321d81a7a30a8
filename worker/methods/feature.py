"""Losses on the networks' features. B batch, C channels, H height, W width; maps are (B, C, H, W).

Each formula is a scalar from one stage of student and teacher, the batch's mean, without its weight in a job's sum. What is named
``…_loss`` or ``…Loss`` builds it from a spec, as the sum over the pairs of layers.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import AttentionTransfer, FitNet, NeuronSelectivity, SimilarityPreserving, VariationalInformation
from worker.methods.batch import DistillationBatch, Loss
from worker.methods.compared import is_map, match_sizes, over_layers, pooled_width, resized, token_features
from worker.methods.context import LossContext
from worker.methods.layer_pairs import UnfitLayers

_VARIANCE_EPSILON = 1e-5
_CONTEXT_SIDES = (4, 2, 1)


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of features of one shape (FitNets: Romero et al., 2015, arXiv:1412.6550)."""
    return functional.mse_loss(student, teacher)


def attention(student: Tensor, teacher: Tensor, *, power: float) -> Tensor:
    """Mean squared difference of the maps' attention, ``mean_c |f|^p`` at unit length; widths may differ.

    Zagoruyko, Komodakis, 2017, arXiv:1612.03928. Their β/2 goes with the weight.
    """
    return (_attention_map(student, power) - _attention_map(teacher, power)).square().mean()


def _attention_map(maps: Tensor, power: float) -> Tensor:
    """(B, H·W), each row of unit length."""
    return functional.normalize(maps.abs().pow(power).mean(dim=1).flatten(1), dim=1)


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖norm(F_t F_tᵀ) − norm(F_s F_sᵀ)‖² / B²``: how alike the batch's samples are to each other; any two shapes.

    Tung, Mori, 2019, arXiv:1907.09682.
    """
    return (_similarities(teacher) - _similarities(student)).square().sum() / len(student) ** 2


def _similarities(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    return functional.normalize(flat @ flat.T, dim=1)


def neuron_selectivity(student: Tensor, teacher: Tensor) -> Tensor:
    """Maximum mean discrepancy of the channels' maps under the kernel ``(xᵀy)²``; widths may differ.

    Huang, Wang, 2017, arXiv:1707.01219.
    """
    student, teacher = (functional.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))
    return _kernel(teacher, teacher) + _kernel(student, student) - 2 * _kernel(student, teacher)


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return torch.einsum("bcl,bdl->bcd", first, second).square().mean()


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of maps (B, C, H, W), and of their averages over 4×4, 2×2 and 1×1 fields at halving weights.

    The hierarchical context loss of ReviewKD (Chen et al., 2021, arXiv:2104.09044).
    """
    height = student.shape[2]
    loss, weight, total = functional.mse_loss(student, teacher), 1.0, 1.0
    for side in _CONTEXT_SIDES:
        if side >= height:
            continue
        weight /= 2
        total += weight
        ours, theirs = (functional.adaptive_avg_pool2d(maps, (side, side)) for maps in (student, teacher))
        loss = loss + weight * functional.mse_loss(ours, theirs)
    return loss / total


class VariationalRegressor(nn.Module):
    """``½ [(μ(f_s) − f_t)² / σ² + log σ²]``, batch mean, with a learned variance for each of the teacher's channels.

    Ahn et al., 2019, arXiv:1904.05835. Feature maps (B, C, H, W), or vectors (B, C).
    """

    def __init__(self, student_channels: int, teacher_channels: int, *, initial_variance: float, spatial: bool) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Module:
            return nn.Conv2d(inputs, outputs, 1, bias=False) if spatial else nn.Linear(inputs, outputs, bias=False)

        self.mean = nn.Sequential(
            linear(student_channels, teacher_channels),
            nn.ReLU(),
            linear(teacher_channels, teacher_channels),
            nn.ReLU(),
            linear(teacher_channels, teacher_channels),
        )
        self.spread = nn.Parameter(torch.full((teacher_channels,), math.log(math.exp(initial_variance - _VARIANCE_EPSILON) - 1)))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        variance = functional.softplus(self.spread) + _VARIANCE_EPSILON
        variance = variance.view(1, -1, *[1] * (teacher.dim() - 2))
        mean: Tensor = self.mean(student)
        return 0.5 * ((mean - teacher).square() / variance + variance.log()).mean()


class FitNetLoss(nn.Module):
    """The loss :func:`hint` on each of the student's layers behind a learned regressor."""

    def __init__(self, spec: FitNet, context: LossContext) -> None:
        super().__init__()
        context.require_same_tokens(spec.name)
        self._pairs = context.pairs
        self.regressors = nn.ModuleList(Regressor(ours, theirs) for ours, theirs in context.shape_pairs())

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            hint(regressor(ours), theirs)
            for regressor, (ours, theirs) in zip(self.regressors, token_features(batch, self._pairs), strict=True)
        ]
        return torch.stack(losses).sum()


class Regressor(nn.Module):
    """Maps one layer's shape to another's: a 1x1 convolution for maps, after resizing, else a linear map."""

    def __init__(self, student: torch.Size, teacher: torch.Size) -> None:
        super().__init__()
        self._target = teacher
        if is_map(student) and is_map(teacher):
            self.map: nn.Module = nn.Sequential(
                nn.Conv2d(student[0], teacher[0], 1, bias=False), nn.BatchNorm2d(teacher[0]), nn.ReLU()
            )
        elif len(student) == len(teacher) and student[:-1] == teacher[:-1]:  # vectors, or one for each token
            self.map = nn.Linear(student[-1], teacher[-1])
        else:
            raise UnfitLayers(f"layers of shape {tuple(student)} and {tuple(teacher)} cannot be compared: name others in layers")

    def forward(self, features: Tensor) -> Tensor:
        """(B, *student) to (B, *teacher)."""
        if is_map(self._target):
            features = resized(features, self._target[-2:])
        mapped: Tensor = self.map(features)
        return mapped


def attention_loss(spec: AttentionTransfer, context: LossContext) -> Loss:
    context.require_maps(spec.name)
    return over_layers(context.pairs, lambda ours, theirs: attention(*match_sizes(ours, theirs), power=spec.power))


def similarity_loss(spec: SimilarityPreserving, context: LossContext) -> Loss:
    return over_layers(context.pairs, similarity)


def neuron_selectivity_loss(spec: NeuronSelectivity, context: LossContext) -> Loss:
    context.require_maps(spec.name)
    return over_layers(context.pairs, lambda ours, theirs: neuron_selectivity(*match_sizes(ours, theirs)))


class VariationalLoss(nn.Module):
    """A :class:`VariationalRegressor` for each pair of layers, summed."""

    def __init__(self, spec: VariationalInformation, context: LossContext) -> None:
        super().__init__()
        context.require_same_tokens(spec.name)
        self._pairs = context.pairs
        self.regressors = nn.ModuleList(
            VariationalRegressor(
                pooled_width(ours),
                pooled_width(theirs),
                initial_variance=spec.initial_variance,
                spatial=is_map(ours) and is_map(theirs),
            )
            for ours, theirs in context.shape_pairs()
        )

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            regressor(*match_sizes(ours, theirs))
            for regressor, (ours, theirs) in zip(self.regressors, token_features(batch, self._pairs), strict=True)
        ]
        return torch.stack(losses).sum()
