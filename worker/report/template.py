"""The templates of the report's documents, and how figures are written in them.

An undefined name in a template is an error, and whatever stands in an HTML page is escaped.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from service.spec.cards.network import StartCard
from service.spec.gain_words import gain_words
from service.spec.report import Interval, Report
from service.spec.tasks import TASKS
from worker.tasks.card_text import one_line


def percent(share: float | None) -> str:
    """With two decimals; empty for None."""
    return "" if share is None else f"{share:.2%}"


def number(value: float | None) -> str:
    """With four decimals; empty for None."""
    return "" if value is None else f"{value:.4f}"


def agreement(value: float | None, targets: Mapping[str, Any], of_numbers: str = "correlation") -> str:
    """In percent, the share of equal classes; ``of_numbers`` where any of the ``targets`` is a number; empty for None."""
    return f"{number(value)} ({of_numbers})" if value is not None and None in targets.values() else percent(value)


def interval(value: Interval) -> str:
    """``0.9312 ± 0.0041``; the mean alone of a single seed."""
    return f"{value.mean:.4f}" + ("" if value.half_width is None else f" ± {value.half_width:.4f}")


def told_gain(report: Report) -> str | None:
    """The gain over the control with what it was measured on; None if it was not measured."""
    if report.gain is None:
        return None
    return gain_words(
        report.gain,
        interval=report.gain_interval,
        num_seeds=report.gain_seeds,
        rows=report.student.test_rows,
        in_points=report.student.test_accuracy is not None,
        counted=TASKS[report.task].counted,
    )


def told_start(start: StartCard | None) -> str:
    """Which network it comes from, and what became of its head; empty for a network that the job made."""
    if start is None:
        return ""
    head = {"kept": "its own head", "mapped": "its own head in the job's order", "new": "a new head"}[start.head]
    return f"{start.source}, {'fine-tuned' if start.tuned else 'as it is'}, with {head}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("worker.report"),
    autoescape=select_autoescape(enabled_extensions=("html.jinja",)),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "percent": percent,
    "agreement": agreement,
    "interval": interval,
    "one_line": one_line,
    "score": number,
    "start": told_start,
    "count": lambda value: f"{value:,}",
}


def render(name: str, **context: Any) -> str:
    """The document that the template ``name`` makes of its context."""
    return _ENVIRONMENT.get_template(name).render(context)
