"""What a team sets about its queue: the charge for devices, how long a job waits before it ages or gets a reservation.

A transaction carries the policy of its process, as it carries its clock, so that everything in one follows the same.
"""

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy.orm import Session

from service.settings import Settings

_KEY = "queue_policy"


@dataclass(frozen=True)
class QueuePolicy:
    """The defaults are those of :class:`~service.settings.Settings`, which explains each value."""

    usage_half_life_seconds: float = 7 * 86_400.0
    entry_seconds: float = 600.0
    cpu_slot_charge: float = 0.1
    promote_after_seconds: float = 86_400.0
    reserve_after_seconds: float = 600.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            usage_half_life_seconds=settings.usage_half_life_seconds,
            entry_seconds=settings.entry_seconds,
            cpu_slot_charge=settings.cpu_slot_charge,
            promote_after_seconds=settings.promote_after_seconds,
            reserve_after_seconds=settings.reserve_after_seconds,
        )

    def gpu_equivalent(self, gpus: float, cpu_slots: float) -> float:
        """An amount of GPUs and CPU slots, or of their seconds, as the amount of GPUs that is charged alike."""
        return gpus + cpu_slots * self.cpu_slot_charge

    def rate(self, gpus: int, cpu_slots: int) -> float:
        """GPU-seconds that one second of a job is charged; ``cpu_slots`` count only for a job without GPUs."""
        return self.gpu_equivalent(gpus, 0 if gpus else cpu_slots)

    def entry_charge(self, gpus: int, cpu_slots: int) -> float:
        """GPU-seconds that a job's owner is charged at its start."""
        return self.entry_seconds * self.rate(gpus, cpu_slots)

    def decayed(self, amount: float, age_seconds: float) -> float:
        """The rest of an amount of usage after ``age_seconds``."""
        return float(amount * 2 ** (-max(0.0, age_seconds) / self.usage_half_life_seconds))


def info(queue_policy: QueuePolicy) -> dict[str, Any]:
    """The entry of a session's ``info`` that :func:`queue_policy_of` reads."""
    return {_KEY: queue_policy}


def queue_policy_of(session: Session) -> QueuePolicy:
    """The policy that this transaction follows; the default one if it carries none."""
    queue_policy: QueuePolicy = session.info.get(_KEY) or QueuePolicy()
    return queue_policy
