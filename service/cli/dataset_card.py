"""What is known of one dataset, for people."""

from typing import Any

from service.cli.report_card import size_text
from service.cli.tables import print_fields, print_rows
from service.cli.terminal import err, out
from service.client import Dataset

_MOST_CLASSES = 50
_BAR_CELLS = 30


def print_dataset(dataset: Dataset) -> None:
    """Prints columns, splits, classes, lengths, rows that are there several times, and warnings."""
    facts = dataset.facts
    print_fields(
        {
            "source": f"dataset:{dataset.id}",
            "name": dataset.name,
            "task": dataset.task,
            "size": f"{size_text(dataset.bytes)} sent, {size_text(dataset.stored_bytes)} kept",
            "in memory": size_text(sum(facts.decoded_bytes.values())) if facts is not None else "",
        }
    )
    columns: dict[str, dict[str, Any]] = dataset.columns
    rows = [{"column": name, **{key: column[key] for key in ("kind", "dtype")}} for name, column in columns.items()]
    _print("columns", [row | {"missing": columns[row["column"]]["num_missing"] or ""} for row in rows])
    repeated = {} if facts is None else facts.repeated_rows
    splits = [{"split": name, "rows": f"{count:,}"} for name, count in dataset.splits.items()]
    _print("splits", [row | {"repeated": f"{repeated[row['split']]:,}" if row["split"] in repeated else ""} for row in splits])
    for name, column in columns.items():
        if column["classes"] and column["class_counts"]:
            counts = column["class_counts"]
            of_classes = [
                {"class": each} | {split: f"{by_class[index]:,}" for split, by_class in counts.items()}
                for index, each in enumerate(column["classes"][:_MOST_CLASSES])
            ]
            more = len(column["classes"]) - len(of_classes)
            _print(
                f"classes of {name!r}" + (f", the first {_MOST_CLASSES} of {_MOST_CLASSES + more:,}" if more else ""), of_classes
            )
    for name, lengths in {} if facts is None else facts.lengths.items():
        totals = [sum(by_bin) for by_bin in zip(*lengths.counts.values(), strict=True)]
        ends = [f"{edge:g}" for edge in lengths.edges[1:]] + ["…"]
        bins = [
            {lengths.unit: f"{start:g} to {end}", "rows": f"{total:,}", "": "█" * round(_BAR_CELLS * total / max(totals))}
            for start, end, total in zip(lengths.edges, ends, totals, strict=True)
            if total
        ]
        _print(f"{name!r}: {lengths.least:g} to {lengths.most:g} {lengths.unit}, {lengths.mean:.4g} on average", bins)
    shared = [] if facts is None else facts.shared_rows
    _print("rows in two splits", [{"split": each.split, "also in": each.also_in, "rows": f"{each.rows:,}"} for each in shared])
    for warning in dataset.warnings:
        err.print(f"warning: {warning['message']}", markup=False)


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        out.print(f"\n{title}", markup=False, style="bold")
        print_rows(rows)
