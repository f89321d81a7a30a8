"""How far the student's score depends on its seed, from its replicates.

A replicate differs from the job's own student in its initial weights and the order of its samples, not in its data or teacher.
"""

from collections.abc import Sequence

from service.spec.report import Interval, SeedsCard
from worker.evaluation.metrics import interval_95


def seeds_card(seeds: Sequence[int], *, student: Sequence[float], control: Sequence[float] | None) -> SeedsCard:
    """Mean and 95% interval of the test scores by seed, and of the gains over the control where there is one."""
    gains = None if control is None else [ours - theirs for ours, theirs in zip(student, control, strict=True)]
    return SeedsCard(
        seeds=list(seeds),
        student=_interval(student),
        control=None if control is None else _interval(control),
        gain=None if gains is None else _interval(gains),
    )


def _interval(values: Sequence[float]) -> Interval:
    mean, half_width = interval_95(values)
    return Interval(mean=mean, half_width=half_width, values=list(values))
