"""The distillation losses: ``TERMS`` has one entry for each name in ``service.spec.methods.METHODS``.

``response``, ``feature`` and ``relation`` hold the formulas, ``terms`` makes of them what a spec names, ``tap`` catches the
layers that they compare.
"""

from worker.methods.batch import Outputs, Step
from worker.methods.feature_extractor import Tap, UnknownLayer
from worker.methods.layer_pairs import Pairs, UnfitLayers, informed_by, layers_of, looks_inside, output_width, shapes_of, terms_of
from worker.methods.terms import TERMS, Objective, Setting, build_term

__all__ = [
    "TERMS",
    "Objective",
    "Outputs",
    "Pairs",
    "Setting",
    "Step",
    "Tap",
    "UnfitLayers",
    "UnknownLayer",
    "build_term",
    "informed_by",
    "layers_of",
    "looks_inside",
    "output_width",
    "shapes_of",
    "terms_of",
]
