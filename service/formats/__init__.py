"""Readers of dataset files, for the inspection of uploads and for training. They import no torch.

Inspection and training read the same chunks with the same checks, so that a file which was accepted at upload can be read in
training. Nothing is unpickled. A file that cannot be used raises :class:`service.errors.InvalidFile`, whose text names the place
and the remedy.
"""

from service.formats.arrays import DataArrays, SplitArrays
from service.formats.chunk import RawInputs, Waveform
from service.formats.media.encoded import EncodedImage
from service.formats.pair import TextPair
from service.formats.places import RowPlaces
from service.formats.sample import Sample, first_samples
from service.formats.source import inspect_source
from service.formats.table import inspect_dataset, read_dataset, write_shards
from service.formats.targets.target import TargetArray

__all__ = [
    "DataArrays",
    "EncodedImage",
    "RawInputs",
    "RowPlaces",
    "Sample",
    "SplitArrays",
    "TargetArray",
    "TextPair",
    "Waveform",
    "first_samples",
    "inspect_dataset",
    "inspect_source",
    "read_dataset",
    "write_shards",
]
