"""How long a running job still takes: the steps that are left, by its check, at the pace that is measured."""

from typing import Any

_PHASES = ("teacher", "student", "control", "repeats")
"""Those that count steps, in their order."""


class Remaining:
    """Of one attempt. ``estimate`` is what the job's check found, if it was checked."""

    def __init__(self, estimate: dict[str, Any] | None) -> None:
        self._steps: dict[str, int] = (estimate or {}).get("steps", {})
        self._phase = ""
        self._last_step = self._last_total = self._earlier = 0
        """``_earlier``: steps of networks that the same phase trained before the present one."""

    def seconds(self, progress: dict[str, Any]) -> float | None:
        """Of the whole job, once a phase that counts steps has a pace; None where this progress tells nothing of it."""
        phase, step, total, eta = (progress.get(name) for name in ("phase", "step", "total_steps", "eta_seconds"))
        if phase not in _PHASES or step is None or not total:
            return None
        if phase != self._phase:
            self._phase, self._earlier = phase, 0
        elif step < self._last_step:
            self._earlier += self._last_total
        self._last_step, self._last_total = step, total
        if eta is None or step >= total:
            return None
        left = max(total - step, self._steps.get(phase, 0) - self._earlier - step)
        left += sum(self._steps.get(later, 0) for later in _PHASES[_PHASES.index(phase) + 1 :])
        return float(left * eta / (total - step))
