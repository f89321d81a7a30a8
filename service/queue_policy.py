"""What a team sets about its queue: what use of devices costs, how long a job waits before something is done for it.

A transaction carries the rules of its process, as it carries its clock, so that all that happens in one goes by the same.
"""

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy.orm import Session

from service.settings import Settings

_KEY = "rules"


@dataclass(frozen=True)
class Rules:
    """By default those of :class:`~service.settings.Settings`, which says what each means."""

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

    def rate(self, gpus: int, cpu_slots: int) -> float:
        """GPU-seconds that a second of a job counts which holds so many devices."""
        return gpus if gpus else cpu_slots * self.cpu_slot_charge

    def decayed(self, amount: float, age_seconds: float) -> float:
        """What is left of an amount of use after so long."""
        return float(amount * 2 ** (-max(0.0, age_seconds) / self.usage_half_life_seconds))


def info(rules: Rules) -> dict[str, Any]:
    """What a session must carry for :func:`rules_of`."""
    return {_KEY: rules}


def rules_of(session: Session) -> Rules:
    """The rules that this transaction goes by."""
    rules: Rules = session.info.get(_KEY) or Rules()
    return rules
