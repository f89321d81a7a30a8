"""Metric points are means of windows, at most about 1,000."""

import pytest

from worker.training.metric_points import MAX_POINTS, WindowMean


@pytest.mark.parametrize(("num_values", "points"), [(1, 1), (1_000, 1_000), (1_001, 501), (99_999, 1_000)])
def test_there_are_never_more_than_the_most_points(num_values: int, points: int) -> None:
    window = WindowMean(num_values)
    means = [mean for mean in [*(window.add(1.0) for _ in range(num_values)), window.close()] if mean is not None]

    assert len(means) == points <= MAX_POINTS
    assert set(means) == {1.0}


def test_a_window_that_is_taken_up_again_gives_the_same_mean() -> None:
    values = [0.1 * index for index in range(7)]
    whole, first, second = WindowMean(7_000), WindowMean(7_000), WindowMean(7_000)
    expected = [whole.add(value) for value in values][-1]
    for value in values[:3]:
        first.add(value)
    second.restore(first.state())

    assert [second.add(value) for value in values[3:]][-1] == expected


def test_an_empty_window_has_no_mean() -> None:
    assert WindowMean(10).close() is None
