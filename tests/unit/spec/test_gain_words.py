"""A gain is told with what it was measured on, and no more than was shown."""

from service.spec.gain_words import gain_words


def test_one_run_is_told_as_one_run_with_its_rows() -> None:
    words = gain_words(0.0111, interval=(-0.0091, 0.0312), num_seeds=1, rows=359, in_points=True)
    assert words == "+1.11 points (one run, 95% interval -0.91 to +3.12 on 359 samples: no difference shown)"
    shown = gain_words(0.25, interval=(0.2, 0.3), num_seeds=1, rows=None, in_points=True)
    assert shown == "+25.00 points (one run, 95% interval +20.00 to +30.00)"


def test_of_several_seeds_the_mean_is_told() -> None:
    words = gain_words(-0.014, interval=(-0.134, 0.106), num_seeds=3, rows=48, in_points=True)
    assert words == "-1.40 ± 12.00 points (mean of 3 seeds and its 95% interval: no difference shown)"
    of_a_number = gain_words(0.5, interval=(0.4, 0.6), num_seeds=2, rows=48, in_points=False)
    assert of_a_number == "+0.5000 ± 0.1000 (mean of 2 seeds and its 95% interval)"


def test_a_gain_without_an_interval_is_told_alone() -> None:
    assert gain_words(0.0111, interval=None, num_seeds=1, rows=359, in_points=True) == "+1.11 points"
    assert gain_words(-0.02, interval=None, num_seeds=1, rows=None, in_points=False) == "-0.0200"
