"""The shared queue: which job starts next and where, why the others wait, and when they should start.

``policy`` and ``preemption`` decide, given a snapshot of one pool and its ``hosts``, without any I/O; ``snapshot`` reads it;
``claim`` and ``sweep`` act on it; ``explain`` computes each waiting job's place and blocker (``queue_order``, ``blockers``), and
``forecast`` its expected start; ``queue_status_cache`` shares the result among readers.
"""

from service.scheduling.claim import Claim, Offer, claim
from service.scheduling.hosts import Device
from service.scheduling.snapshot import live_workers
from service.scheduling.sweep import (
    claim_sweep,
    move_reservations,
    pools_with_reservations,
    pools_with_urgent_jobs,
    preempt,
    sweep,
    wakes_due,
)

__all__ = [
    "Claim",
    "Device",
    "Offer",
    "claim",
    "claim_sweep",
    "live_workers",
    "move_reservations",
    "pools_with_reservations",
    "pools_with_urgent_jobs",
    "preempt",
    "sweep",
    "wakes_due",
]
