"""Learning rates as functions of the step."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from service.spec.training import Constant, Cosine, Linear, OneCycle, Schedule, Step
from worker.training.schedules import learning_rate


def curve(schedule: Schedule, *, total_steps: int, peak: float = 1.0) -> list[float]:
    return [learning_rate(schedule, peak=peak, step=step, total_steps=total_steps) for step in range(total_steps)]


def test_one_cycle_is_pytorchs_own() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = OneCycleLR(optimizer, max_lr=0.02, total_steps=50, pct_start=0.3, cycle_momentum=False)
    theirs = []
    for _ in range(50):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    ours = curve(OneCycle(peak_fraction=0.3), total_steps=50, peak=0.02)

    # PyTorch counts its phases from step -1, ours share one step less: the curves differ by less than one step.
    assert ours == pytest.approx(theirs, abs=0.02 * 0.12)
    assert (ours[0], ours[-1]) == pytest.approx((theirs[0], theirs[-1]))


def test_one_cycle_peaks_where_it_is_told_to() -> None:
    rates = curve(OneCycle(peak_fraction=0.5), total_steps=101)

    assert rates[50] == max(rates) == 1.0
    assert rates == pytest.approx([*rates[:51], *sorted(rates[51:], reverse=True)])


def test_cosine_warms_up_and_ends_near_nothing() -> None:
    rates = curve(Cosine(name="cosine", warmup_fraction=0.1), total_steps=100)

    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_linear_warms_up_and_falls_in_a_straight_line_to_nothing() -> None:
    rates = curve(Linear(name="linear", warmup_fraction=0.2), total_steps=10, peak=0.8)

    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_steps_multiply_at_their_milestones() -> None:
    rates = curve(Step(name="step", milestones=[0.5, 0.75], factor=0.1), total_steps=8)

    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_stays() -> None:
    assert curve(Constant(name="constant"), total_steps=3, peak=0.5) == [0.5] * 3


@pytest.mark.parametrize(
    "schedule", [OneCycle(), Cosine(name="cosine"), Linear(name="linear"), Step(name="step"), Constant(name="constant")]
)
@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_shortest_trainings_have_a_learning_rate_above_zero(schedule: Schedule, total_steps: int) -> None:
    rates = curve(schedule, total_steps=total_steps)

    assert all(0 < rate <= 1 for rate in rates)
