"""The templates of the report's documents, and how figures are written in them.

An undefined name in a template is an error, and whatever stands in an HTML page is escaped.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from service.spec.report import Interval


def percent(share: float | None) -> str:
    """With two decimals; empty for None."""
    return "" if share is None else f"{share:.2%}"


def number(value: float | None) -> str:
    """With four decimals; empty for None."""
    return "" if value is None else f"{value:.4f}"


def agreement(value: float | None, targets: Mapping[str, Any]) -> str:
    """In percent, the share of equal classes; a correlation where any of the ``targets`` is a number; empty for None."""
    return f"{number(value)} (correlation)" if value is not None and None in targets.values() else percent(value)


def interval(value: Interval) -> str:
    """``0.9312 ± 0.0041``; the mean alone of a single seed."""
    return f"{value.mean:.4f}" + ("" if value.half_width is None else f" ± {value.half_width:.4f}")


def one_line(text: str) -> str:
    """Text that can neither end a line of Markdown nor open a code span."""
    return " ".join(text.replace("`", "'").split())


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
    "count": lambda value: f"{value:,}",
    "points": lambda value: f"{value * 100:+.2f} points",
}


def render(name: str, **context: Any) -> str:
    """The document that the template ``name`` makes of its context."""
    return _ENVIRONMENT.get_template(name).render(context)
