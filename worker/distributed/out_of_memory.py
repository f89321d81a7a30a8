"""What an allocation that failed looks like."""

import errno

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on a GPU or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # The CPU allocator has no exception of its own.
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "can't allocate memory" in str(error))
