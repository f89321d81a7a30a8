"""The report card as a table: teacher, control and student, with compression and gain below."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from service.spec.gain_words import gain_words
from service.spec.tasks import TASKS, ShownMetric, TaskInfo
from service.spec.verdict import verdict

_ROLES = ("teacher", "control", "student")


def report_card(report: Mapping[str, Any]) -> Table:
    """Builds a row for each network of a ``report.json``; missing figures are empty.

    Latency is that of a single sample; agreement is the share of the test split on which student and teacher predict the same; of
    numbers their correlation.
    """
    table = Table(title="Report card", title_style="bold", title_justify="left", caption=_caption(report), caption_justify="left")
    table.add_column("")
    student = report.get("student") or {}
    figure = "test accuracy" if student.get("test_accuracy") is not None else "test score"
    info = _info(report)
    shown = [] if info is None or info.shown_metric is None else [info.shown_metric]
    for column in (figure, *(metric.name for metric in shown), "parameters", "size", "latency", "agreement"):
        table.add_column(column, justify="right")
    for role in _ROLES:
        card = report.get(role)
        if isinstance(card, Mapping):
            latency_ms = card.get("latency_ms") or {}
            table.add_row(
                role,
                test_score(report, role),
                *(_shown(card, metric) for metric in shown),
                _count(card.get("parameters")),
                size_text(card.get("bytes")),
                _milliseconds(latency_ms.get("batch_1")),
                _agreement(report) if role == "student" else "",
                style="bold" if role == "student" else "",
            )
    return table


def test_score(figures: Mapping[str, Any] | None, role: str) -> str:
    """A network's figure on the test split, of a report or of a job's ``result``; empty where there is none."""
    card = (figures or {}).get(role) or {}
    return _percent(card.get("test_accuracy")) or _score(card.get("test_score"))


def gain_text(figures: Mapping[str, Any] | None) -> str:
    """The student's gain over the control, of a report or of a job's ``result``; empty without a control."""
    gain = (figures or {}).get("gain")
    if gain is None:
        return ""
    student = (figures or {}).get("student") or {}
    return gain_words(gain, interval=None, num_seeds=1, rows=None, in_points=student.get("test_accuracy") is not None)


def _info(report: Mapping[str, Any]) -> TaskInfo | None:
    """What the report's task is; None for one that is not known here."""
    return next((info for task, info in TASKS.items() if task == report.get("task")), None)


def _caption(report: Mapping[str, Any]) -> Text:
    parts = [report.get("verdict") or verdict(report)]
    if report.get("score_with_teacher") is not None:
        parts.append(f"{report['score_with_teacher']:.4f} while the student reads its teacher's output")
    gates = [Text(f"{'held' if gate['held'] else 'missed'}: {gate['message']}") for gate in report.get("require") or []]
    warnings = [Text(f"warning: {warning['message']}", style="yellow") for warning in report.get("warnings") or []]
    return Text("\n").join([Text("; ".join(parts)), *gates, *warnings])


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _agreement(report: Mapping[str, Any]) -> str:
    """As a share of equal classes in percent; a correlation where a target is a number."""
    targets = (report.get("data") or {}).get("targets") or {}
    value = report.get("agreement")
    return _score(value) if None in targets.values() else _percent(value)


def _shown(card: Mapping[str, Any], metric: ShownMetric) -> str:
    value = (card.get("metrics") or {}).get(metric.target, {}).get(metric.name)
    return "" if value is None else f"{value:,.2f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def size_text(num_bytes: float | None) -> str:
    if num_bytes is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} GiB"
