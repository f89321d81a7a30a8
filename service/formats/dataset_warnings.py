"""What the answer to an upload tells about a file that was accepted: what is missing, what takes no part.

Every warning gives its figures, the first place, and what to do if the file was meant otherwise.
"""

from collections.abc import Mapping, Sequence

from service.formats.chunk import ColumnSelection
from service.formats.target import Settled, TargetTally
from service.spec.data import Column
from service.spec.split_names import split_roles
from service.spec.warning_message import WarningMessage


def target_warnings(
    tallies: Mapping[str, TargetTally], settled: Mapping[str, Settled], lacking: Sequence[str], columns: Mapping[str, Column]
) -> list[WarningMessage]:
    """What is missing from the targets; ``columns`` are those of the file, ``lacking`` the targets that it has no column for."""
    found = []
    for name, target in settled.items():
        tally, num_missing = tallies[name], sum(target.missing_counts.values())
        if name in lacking:
            found.append(_no_column(name, num_missing, columns))
        elif not tally.num_present.total():
            message = f"no row has a value in column {name!r}: {_unlabelled(num_missing)}"
            found.append(WarningMessage(code="unlabelled", message=message))
        elif num_missing:
            found.append(_some_missing(tally))
        found += _class_warnings(name, target)
    return found


def split_warnings(splits: Mapping[str, int]) -> list[WarningMessage]:
    """The splits that no part of a job reads unless its spec names them."""
    roles = split_roles(splits)
    if not roles.unused or roles.train is None:
        return []
    parts = {"train": roles.train, "validation": roles.validation, "test": roles.test}
    used = ", ".join(f"{part} is {'held out of it' if name is None else repr(name)}" for part, name in parts.items())
    rows = sum(splits[name] for name in roles.unused)
    message = (
        f"split {listed(roles.unused)} ({rows:,} rows) takes no part unless the spec's dataset.splits names it; by default {used}"
    )
    return [WarningMessage(code="split_unused", message=message)]


def column_warnings(columns: Mapping[str, Column], selection: ColumnSelection) -> list[WarningMessage]:
    """The columns that are neither input nor target."""
    unused = [name for name, column in columns.items() if column.kind == "other"]
    if not unused:
        return []
    message = (
        f"column {listed(unused)} takes no part: the input is {selection.input_column!r}, the targets are "
        f"{listed(selection.target_columns)}; to predict another, upload the file with target_column=NAME"
    )
    return [WarningMessage(code="column_unused", message=message)]


def listed(names: Sequence[str]) -> str:
    """The first few names, quoted, and how many more there are."""
    shown = ", ".join(repr(name)[:100] for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (shown + more) or "none"


def _no_column(name: str, num_rows: int, columns: Mapping[str, Column]) -> WarningMessage:
    others = [other for other, column in columns.items() if column.kind == "other"]
    message = f"the file has no column {name!r}: {_unlabelled(num_rows)}"
    if others:
        message += f"; if its labels have another name, of {listed(others)}, upload it with target_column=NAME"
    return WarningMessage(code="unlabelled", message=message)


def _unlabelled(num_rows: int) -> str:
    return f"all {num_rows:,} rows are read as without a label, from which a student learns by a given teacher's outputs alone"


def _some_missing(tally: TargetTally) -> WarningMessage:
    missing = tally.missing_counts.total()
    total = missing + tally.num_present.total()
    empty = [split for split, count in tally.num_present.items() if not count]
    message = (
        f"{missing:,} of {total:,} rows have no value in column {tally.column!r} (the first: {tally.first_missing}); "
        "they are read as without a label"
    )
    if empty:
        message += f"; split {listed(empty)} has none in any row"
    return WarningMessage(code="labels_missing", message=message)


def _class_warnings(name: str, target: Settled) -> list[WarningMessage]:
    if not target.classes or target.counts is None:
        return []
    found = []
    totals = [sum(of_class) for of_class in zip(*target.counts.values(), strict=True)]
    if empty := [each for each, total in zip(target.classes, totals, strict=True) if not total]:
        message = f"{len(empty)} of the {len(target.classes)} classes of column {name!r} occur in no row: {listed(empty)}"
        if target.classes == [str(index) for index in range(len(target.classes))]:
            message += "; if its values are numbers rather than classes, write them as floats"
        found.append(WarningMessage(code="class_without_rows", message=message))
    train = split_roles(target.counts).train
    if train is not None and any(target.counts[train]):
        by_class = zip(target.classes, totals, target.counts[train], strict=True)
        elsewhere = [each for each, total, in_train in by_class if total and not in_train]
        if elsewhere:
            message = f"split {train!r} has no row of {listed(elsewhere)} in column {name!r}, and other splits have some"
            found.append(WarningMessage(code="class_not_in_train", message=message))
    return found
