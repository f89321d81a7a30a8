"""How a gain over the control is told: with what it was measured on, and no more than was shown. Pure, no torch."""

from collections.abc import Sequence


def is_shown(interval: Sequence[float]) -> bool:
    """Whether a 95% interval leaves out 0, so that there is a difference."""
    return interval[0] > 0 or interval[1] < 0


def gain_words(
    gain: float,
    *,
    interval: Sequence[float] | None,
    num_seeds: int,
    rows: int | None,
    in_points: bool,
    counted: str = "samples",
) -> str:
    """Tells a gain: ``+1.11 points (one run, 95% interval -0.90 to +3.12 on 359 samples: no difference shown)``.

    ``rows`` is the number of what the task counts, which ``counted`` names. Of several seeds the gain is their mean, with half of
    the interval's width. Without an interval it is the gain alone.
    """
    scale, digits, unit = (100, 2, " points") if in_points else (1, 4, "")
    value = f"{gain * scale:+.{digits}f}"
    if interval is None:
        return f"{value}{unit}"
    low, high = interval
    shown = "" if is_shown(interval) else ": no difference shown"
    if num_seeds > 1:
        half = f"{(high - low) / 2 * scale:.{digits}f}"
        return f"{value} ± {half}{unit} (mean of {num_seeds} seeds and its 95% interval{shown})"
    ends = f"{low * scale:+.{digits}f} to {high * scale:+.{digits}f}"
    on = "" if rows is None else f" on {rows:,} {counted}"
    return f"{value}{unit} (one run, 95% interval {ends}{on}{shown})"
