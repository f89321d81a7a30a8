"""Dataset files: what an upload holds, and its samples for the trainer. NumPy, pyarrow, Pillow and soundfile alone, no torch.

Both walk the same chunks through the same checks, so that a file which was accepted at upload can be read in training. Nothing is
unpickled. Every file that cannot be used raises :class:`service.errors.InvalidFile`, whose text names the place and the remedy.
"""

from service.formats.chunk import RawInputs, Waveform
from service.formats.sample import Sample, first_samples
from service.formats.table import DataArrays, SplitArrays, inspect_dataset, read_dataset
from service.formats.target import TargetArray

__all__ = [
    "DataArrays",
    "RawInputs",
    "Sample",
    "SplitArrays",
    "TargetArray",
    "Waveform",
    "first_samples",
    "inspect_dataset",
    "read_dataset",
]
