"""The verdict on a finished job, in one sentence: how much smaller and faster its student is, and what it lost and gained.

The report, its page, the command line and the dashboard all tell a job by it. Pure, no torch. Invariant: a difference whose 95%
interval holds 0 is told as not shown, and a student that may be guessing as one that may be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service.spec.gain_words import is_shown
from service.spec.tasks import TASKS

_DOUBTS = {
    "student_below_constant": "worse than a constant guess",
    "student_at_chance": "no better than a constant guess",
    "student_not_shown_better": "not shown to be better than a constant guess",
    "teacher_at_chance": "of a teacher that may be guessing",
    "teacher_not_shown_better": "of a teacher that may be guessing",
    "control_at_chance": "beside a control that may be guessing",
    "control_not_shown_better": "beside a control that may be guessing",
}
"""What a warning of the report says of the student, before anything else is said of it."""


def verdict(report: Mapping[str, Any]) -> str:
    """Tells a ``report.json`` in one sentence; what it does not have, as one of an older service, is left out.

    For example: ``1/12 of the teacher's parameters, 5.1 times faster at batch 1, 0.70 ± 0.30 points below the teacher
    (mean of 3 seeds), 1.30 ± 0.40 points above the same student trained alone (mean of 3 seeds)``.
    """
    codes = {warning["code"] for warning in report.get("warnings") or []}
    doubts = list(dict.fromkeys(words for code, words in _DOUBTS.items() if code in codes))
    told = [*doubts, *_size(report), *_speed(report), *_beside_teacher(report), *_gain(report)]
    sentence = ", ".join(told)
    return sentence[:1].upper() + sentence[1:]


def _size(report: Mapping[str, Any]) -> list[str]:
    ratio = (report.get("compression") or {}).get("parameters")
    if not ratio:
        return []
    if ratio > 9.5:
        return [f"1/{ratio:,.0f} of the teacher's parameters"]
    if round(ratio, 2) == 1:
        return ["as many parameters as the teacher"]
    share = 1 / ratio
    return [f"{share:.0%} of the teacher's parameters" if share < 1 else f"{share:.1f} times the teacher's parameters"]


def _speed(report: Mapping[str, Any]) -> list[str]:
    ratio = (report.get("compression") or {}).get("latency_batch_1")
    if not ratio:
        return []
    if max(ratio, 1 / ratio) < 1.05:
        return ["as fast at batch 1"]
    return [f"{ratio:.1f} times faster at batch 1" if ratio > 1 else f"{1 / ratio:.1f} times slower at batch 1"]


def _beside_teacher(report: Mapping[str, Any]) -> list[str]:
    """How the student stands beside its teacher; by their agreement where no labels tell more."""
    difference, agreement = report.get("over_teacher"), report.get("agreement")
    if difference is not None:
        seeds = len((report.get("seeds") or {}).get("seeds") or [0])
        told = _difference(report, difference, report.get("over_teacher_interval"), other="the teacher", seeds=seeds)
        return [*_shown_metric(report), told]
    if agreement is None:
        return []
    targets, student = (report.get("data") or {}).get("targets") or {}, report.get("student") or {}
    if None not in targets.values() and (targets or student.get("test_accuracy") is not None):
        return [f"agreeing with the teacher on {agreement:.2%} of the test split"]
    return [f"agreeing with the teacher to {agreement:.4f}"]


def _shown_metric(report: Mapping[str, Any]) -> list[str]:
    """The metric that the task's networks are listed by beside their score, such as perplexity."""
    info = TASKS.get(report["task"])
    if info is None or (shown := info.shown_metric) is None:
        return []
    cards = (report.get(role) or {} for role in ("student", "teacher"))
    ours, theirs = ((card.get("metrics") or {}).get(shown.target, {}).get(shown.name) for card in cards)
    return [] if ours is None or theirs is None else [f"{shown.name} {ours:,.2f} beside the teacher's {theirs:,.2f}"]


def _gain(report: Mapping[str, Any]) -> list[str]:
    if report.get("gain") is None:
        return []
    other, seeds = "the same student trained alone", report.get("gain_seeds") or 1
    return [_difference(report, report["gain"], report.get("gain_interval"), other=other, seeds=seeds)]


def _difference(report: Mapping[str, Any], value: float, interval: Sequence[float] | None, *, other: str, seeds: int) -> str:
    """``1.30 ± 0.40 points above OTHER (mean of 3 seeds)``; ``no difference shown from OTHER (…)`` where there is none."""
    student = report.get("student") or {}
    in_points = student.get("test_accuracy") is not None
    scale, digits, unit = (100, 2, " points") if in_points else (1, 4, "")
    rows, info = student.get("test_rows"), TASKS.get(report["task"])
    measured = [f"mean of {seeds} seeds" if seeds > 1 else "one run"]
    if interval is not None and not (seeds > 1 and is_shown(interval)):
        low, high = (f"{end * scale:+.{digits}f}" for end in interval)
        measured.append(f"95% interval {low} to {high}")
    if seeds == 1 and rows is not None:
        measured.append(f"{rows:,} {'samples' if info is None else info.counted}")
    on = ", ".join(measured)
    if interval is not None and not is_shown(interval):
        return f"no difference shown from {other} ({value * scale:+.{digits}f}{unit}: {on})"
    spread = f" ± {(interval[1] - interval[0]) / 2 * scale:.{digits}f}" if interval is not None and seeds > 1 else ""
    where = "above" if value > 0 else "below" if value < 0 else "beside"
    return f"{abs(value) * scale:.{digits}f}{spread}{unit} {where} {other} ({on})"
