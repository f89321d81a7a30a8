"""The data that a job trains on, one module a modality. Nothing is read, drawn or measured at import."""

from worker.data.dataset import Data, Split, SplitName, load_data
from worker.data.errors import UnusableData
from worker.data.pixels import PixelPreprocessing, measure_pixels
from worker.data.preprocessing import Inputs, Preprocessing, first

__all__ = [
    "Data",
    "Inputs",
    "PixelPreprocessing",
    "Preprocessing",
    "Split",
    "SplitName",
    "UnusableData",
    "first",
    "load_data",
    "measure_pixels",
]
