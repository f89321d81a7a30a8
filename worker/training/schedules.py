"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore.

``step`` counts from 0 and is the optimizer step about to be made; ``total_steps`` is the planned length of the training.
"""

import math

from service.spec.training import Constant, Cosine, Linear, OneCycle, Schedule, Step

# Smith & Topin (2018) start at 1/25 of the peak; the end is 1/10,000 of that start, as in PyTorch's OneCycleLR.
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1 / 25 / 10_000


def learning_rate(schedule: Schedule, *, peak: float, step: int, total_steps: int) -> float:
    """The learning rate of one optimizer step; ``peak`` is the optimizer's own."""
    match schedule:
        case Constant():
            return peak
        case Cosine() | Linear():
            return peak * _warmed_up(schedule, step=step, total_steps=total_steps)
        case OneCycle():
            return peak * _one_cycle(schedule, step=step, total_steps=total_steps)
        case Step():
            passed = sum(step >= milestone * total_steps for milestone in schedule.milestones)
            return peak * schedule.factor**passed


def _warmed_up(schedule: Cosine | Linear, *, step: int, total_steps: int) -> float:
    warmup_steps = math.ceil(schedule.warmup_fraction * total_steps)
    if step < warmup_steps:
        # step + 1: the first step would be lost at a learning rate of 0.
        return (step + 1) / warmup_steps
    fraction = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 1 - fraction if isinstance(schedule, Linear) else _half_cosine(1.0, 0.0, fraction=fraction)


def _one_cycle(schedule: OneCycle, *, step: int, total_steps: int) -> float:
    last = max(1, total_steps - 1)
    peak_step = schedule.peak_fraction * last
    if step <= peak_step:
        return _half_cosine(_ONE_CYCLE_START, 1.0, fraction=step / peak_step)
    return _half_cosine(1.0, _ONE_CYCLE_END, fraction=(step - peak_step) / (last - peak_step))


def _half_cosine(start: float, end: float, *, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
