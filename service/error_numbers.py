"""What the operating system's error numbers mean. A trainer, which loads no database, asks here; others ask ``part_errors``."""

import errno

FULL_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Of a disk that takes no file."""
AWAY_NUMBERS = FULL_NUMBERS | frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ETIMEDOUT", "ETIME", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ESHUTDOWN"),
        *("EREMOTEIO", "EBUSY", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ENOLCK"),
    )
    if hasattr(errno, name)
)
"""The disk; the network and what is mounted over it; this machine's own limits."""
_MAY_BE_THE_JOBS = frozenset(
    getattr(errno, name)
    for name in ("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "ENAMETOOLONG", "ELOOP", "EINVAL", "ESPIPE", "ENOMEM")
)
"""What can be wrong with a file that a job names, and the memory that its work takes. Any other number is the machine's."""


def is_machines_number(number: int) -> bool:
    """Whether a job has no part in an error of this number."""
    return number not in _MAY_BE_THE_JOBS
