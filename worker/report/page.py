"""The report as one HTML page that needs no other file and runs no script."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.spec.cards.network import NetworkCard
from service.spec.report import Report
from worker.report.template import number, percent, render, told_gain, told_start

_ROWS: tuple[tuple[str, Callable[[NetworkCard], str]], ...] = (
    ("test accuracy", lambda card: percent(card.test_accuracy)),
    ("… of the last weights", lambda card: percent(card.test_accuracy_last)),
    ("validation accuracy", lambda card: percent(card.validation_accuracy)),
    ("test score", lambda card: number(card.test_score) if card.test_accuracy is None else ""),
    ("95% interval of that", lambda card: _ends(card)),
    ("test samples with a label", lambda card: "" if card.test_rows is None else f"{card.test_rows:,}"),
    ("test loss", lambda card: number(card.test_loss)),
    ("comes from", lambda card: told_start(card.start)),
    ("parameters", lambda card: f"{card.parameters:,}"),
    ("bytes", lambda card: f"{card.bytes:,}"),
    ("number format in memory", lambda card: "" if card.dtype is None else f"{card.dtype.format}, {card.dtype.bytes:,} bytes"),
    ("trained as an adapter", lambda card: _adapter(card)),
    ("latency, batch of 1", lambda card: f"{card.latency_ms.batch_1:.2f} ms"),
    ("latency, batch of 64", lambda card: f"{card.latency_ms.batch_64:.2f} ms"),
    ("optimizer steps", lambda card: f"{card.training.steps:,}" if card.training else ""),
    ("training time", lambda card: f"{card.training.seconds:,.1f} s" if card.training else ""),
)


def _adapter(card: NetworkCard) -> str:
    adapter = card.adapter
    return "" if adapter is None else f"{adapter.variant} of rank {adapter.rank}, {adapter.parameters:,} parameters"


def _ends(card: NetworkCard) -> str:
    if card.test_interval is None:
        return ""
    low, high = card.test_interval
    return f"{low:.4f} to {high:.4f}" if card.test_accuracy is None else f"{low:.2%} to {high:.2%}"


def report_html(report: Report) -> str:
    """The whole page."""
    teachers = {f"teacher {number}": card for number, card in enumerate(report.teachers, start=1)}
    cards = {"teacher": report.teacher, **teachers, **report.chain, "student": report.student}
    if report.control is not None:
        cards["control"] = report.control
    by_name = {} if report.seeds is None else {name: getattr(report.seeds, name) for name in ("student", "control", "gain")}
    return render(
        "report.html.jinja",
        report=report,
        gain=told_gain(report),
        title=report.name or report.job_id,
        cards=cards,
        rows=[*_card_rows(cards), *_metric_rows(cards)],
        methods=[_described(term) for term in report.method.get("terms", [report.method])],
        seeds={name.capitalize(): interval for name, interval in by_name.items() if interval is not None},
    )


def _card_rows(cards: Mapping[str, NetworkCard]) -> Iterator[tuple[str, list[str]]]:
    """A label and a value for each network; a row without any value is left out."""
    for label, show in _ROWS:
        values = [show(card) for card in cards.values()]
        if any(values):
            yield label, values


def _metric_rows(cards: Mapping[str, NetworkCard]) -> Iterator[tuple[str, list[str]]]:
    """The metrics beside the score; the target is named where there are several."""
    measured = {target: list(figures) for card in cards.values() for target, figures in card.metrics.items()}
    for target, names in measured.items():
        for name in names:
            if name in ("accuracy", "loss") and len(measured) == 1:
                continue
            values = [card.metrics.get(target, {}).get(name) for card in cards.values()]
            words = name.replace("_", " ")
            label = words if len(measured) == 1 else f"{target}: {words}"
            yield label, ["" if value is None else f"{value:.4f}" for value in values]


def _described(term: Mapping[str, Any]) -> str:
    """``soft-targets, weight 1.0, temperature 4.0``."""
    return ", ".join([term["name"], *(f"{key} {value}" for key, value in term.items() if key != "name" and value is not None)])
