"""Thinning a metric's points."""

import pytest

from service.queries import thinned


@pytest.mark.parametrize("num_points", [0, 1, 2, 3, 10, 999])
@pytest.mark.parametrize("max_points", [2, 3, 7, 1000])
def test_thinning_keeps_the_ends_and_repeats_nothing(num_points: int, max_points: int) -> None:
    points = [(step, float(step)) for step in range(num_points)]
    thin = thinned(points, max_points)
    assert len(thin) == min(num_points, max_points)
    assert thin == sorted(set(thin))
    assert thin[:1] == points[:1]
    assert thin[-1:] == points[-1:]


def test_without_a_limit_every_point_stays() -> None:
    assert thinned([(1, 1.0), (2, 2.0)], None) == [(1, 1.0), (2, 2.0)]
