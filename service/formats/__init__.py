"""Dataset files: what an upload holds, and its samples for the trainer. NumPy, pyarrow and Pillow alone, no torch.

Both walk the same chunks through the same checks, so that a file which was accepted at upload can be read in training. Nothing is
unpickled. Every file that cannot be used raises :class:`service.errors.InvalidFile`, whose text names the place and the remedy.
"""

from service.formats.table import ImageArrays, Sample, SplitArrays, first_samples, inspect_dataset, read_images

__all__ = ["ImageArrays", "Sample", "SplitArrays", "first_samples", "inspect_dataset", "read_images"]
