"""The shared queue: who runs next and where, why the others wait, and when they should start.

``policy`` and ``preemption`` hold the rules, on a picture of one pool and its ``hosts``, without any I/O; ``picture`` reads that
picture; ``claim`` and ``sweep`` act on it; ``outlook`` tells of it, and ``forecast`` thinks it ahead.
"""

from service.scheduling.claim import Claim, Offer, claim
from service.scheduling.hosts import Device
from service.scheduling.snapshot import live_workers
from service.scheduling.sweep import (
    make_room,
    move_kept_hosts,
    pools_with_kept_hosts,
    pools_with_urgent_jobs,
    sweep,
    take_turn,
    wakes_due,
)

__all__ = [
    "Claim",
    "Device",
    "Offer",
    "claim",
    "live_workers",
    "make_room",
    "move_kept_hosts",
    "pools_with_kept_hosts",
    "pools_with_urgent_jobs",
    "sweep",
    "take_turn",
    "wakes_due",
]
