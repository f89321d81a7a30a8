"""Ids with a prefix, sortable by time: ``job_01k5…``, a ULID in lower-case Crockford base 32."""

import random
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """Creates an id of 48 bits of milliseconds and 80 random bits; ids of one process never decrease.

    An id is no secret: :mod:`random`, seeded by the system in each process, a forked one too, needs no system call for each.
    """
    global _last
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << 80) | random.getrandbits(80)
        _last = max(fresh, _last + 1)
        number = _last
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
