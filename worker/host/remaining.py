"""How long a running job still takes: the steps that are left, by its check, at the pace that is measured."""

from collections.abc import Mapping
from typing import get_args

from worker.protocol import Part, Progress


def remaining_seconds(steps: Mapping[str, int], progress: Progress) -> float | None:
    """Of the whole job; None where this progress tells no pace.

    ``steps`` are those of each part as the job's check found them, empty for a job that was not checked.
    """
    if progress.part is None or progress.eta_seconds is None or progress.step >= progress.total_steps:
        return None
    left_here = progress.total_steps - progress.step
    left = max(left_here, steps.get(progress.part, 0) - progress.earlier_steps - progress.step)
    parts = get_args(Part)
    left += sum(steps.get(later, 0) for later in parts[parts.index(progress.part) + 1 :])
    return left * progress.eta_seconds / left_here
