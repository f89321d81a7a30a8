"""What an allocation that failed looks like."""

import errno

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on a GPU or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


_WORDS = ("DefaultCPUAllocator", "can't allocate memory", "could not create a primitive")
"""Of the CPU's allocator, and of oneDNN, where it has no memory for its own buffers; neither has an exception of its own."""
