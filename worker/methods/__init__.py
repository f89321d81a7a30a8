"""The distillation losses of the methods in ``service.spec.methods.METHODS``: formulas, and what builds each from its spec.

``losses`` has the table from a method's name to its loss, ``sequence`` that of causal language models. The other modules are
named for what their methods compare: outputs (``response``, ``soft_targets``, ``multi_task``, ``online``), layers (``feature``,
``review``, ``distilbert``), relations of samples (``relation``, ``crd``), and embeddings. ``layer_mapping`` finds the layers that
a method compares, and ``feature_extractor`` reads their outputs.
"""

from worker.methods.batch import DistillationBatch, Outputs
from worker.methods.context import LossContext
from worker.methods.feature_extractor import FeatureExtractor, UnknownLayer
from worker.methods.layer_pairs import (
    LayerPairs,
    UnfitLayers,
    compares_layers,
    privileged_term,
)
from worker.methods.losses import LOSSES, WeightedSum, build_loss

__all__ = [
    "LOSSES",
    "DistillationBatch",
    "FeatureExtractor",
    "LayerPairs",
    "LossContext",
    "Outputs",
    "UnfitLayers",
    "UnknownLayer",
    "WeightedSum",
    "build_loss",
    "compares_layers",
    "privileged_term",
]
