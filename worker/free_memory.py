"""Free memory that the C library keeps for this process, beside the tensors that are there.

A network that is loaded, rounded or trained leaves behind holes as large as itself. The library fills them again, but not with
what is larger, so a process grows beyond what its tensors take.
"""

import ctypes
import sys


def return_free_memory() -> None:
    """Gives free memory back to the system, where the C library is one that can: glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
