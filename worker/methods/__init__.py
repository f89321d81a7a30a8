"""The distillation losses: ``LOSSES`` has one entry for each name in ``service.spec.methods.METHODS``.

``response``, ``feature`` and ``relation`` hold the formulas, ``terms`` makes of them what a spec names, ``tap`` catches the
layers that they compare.
"""

from worker.methods.batch import DistillationBatch, Outputs
from worker.methods.feature_extractor import FeatureExtractor, UnknownLayer
from worker.methods.layer_pairs import (
    LayerPairs,
    UnfitLayers,
    layers_of,
    looks_inside,
    output_width,
    privileged_term,
    shapes_of,
    terms_of,
)
from worker.methods.terms import LOSSES, LossContext, Objective, build_loss

__all__ = [
    "LOSSES",
    "DistillationBatch",
    "FeatureExtractor",
    "LayerPairs",
    "LossContext",
    "Objective",
    "Outputs",
    "UnfitLayers",
    "UnknownLayer",
    "build_loss",
    "layers_of",
    "looks_inside",
    "output_width",
    "privileged_term",
    "shapes_of",
    "terms_of",
]
