"""The data that a job trains on, one module per modality. Nothing is read, drawn or measured at import."""

from worker.data.dataset import Data, load_data
from worker.data.errors import UnusableData
from worker.data.images.pixels import PixelPreprocessing, measure_pixels
from worker.data.preprocessing import Preprocessing, RawInputs, first
from worker.data.split import Split, SplitName

__all__ = [
    "Data",
    "PixelPreprocessing",
    "Preprocessing",
    "RawInputs",
    "Split",
    "SplitName",
    "UnusableData",
    "first",
    "load_data",
    "measure_pixels",
]
