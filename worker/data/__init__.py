"""The data that a job trains on, one module a modality. Nothing is read, drawn or measured at import."""

from worker.data.errors import UnusableData
from worker.data.image import ImageData, Split, SplitName, load_images
from worker.data.preprocessing import Preprocessing

__all__ = ["ImageData", "Preprocessing", "Split", "SplitName", "UnusableData", "load_images"]
