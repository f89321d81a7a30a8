"""What the answer to an upload tells about a file that was accepted: what is missing, what takes no part.

Every warning gives its figures, the first place, and what to do if the file was meant otherwise.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from service.formats.chunk import SPLIT_COLUMN, ColumnSelection
from service.formats.targets.label import HOW_TO_NUMBER, HOW_TO_REGRESS
from service.formats.targets.list_label import ListTally
from service.formats.targets.number import HIGHEST_FLOAT_CLASS, NumberTally
from service.formats.targets.tags import HOW_TO_CONVERT_BARE, TagTally
from service.formats.targets.target import Settled, TargetTally
from service.spec.data import Column
from service.spec.split_names import split_roles
from service.spec.tasks import TaskName
from service.spec.warning_message import WarningMessage

_WORDS_FOR_NOTHING = {"nan", "null", "none", "n/a", "na", "<na>", "nat", "-1"}
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_INDEX = re.compile(r"__index_level_[0-9]+__|Unnamed: 0|")
"""Columns that pandas writes of its index."""
_LEAST_ROWS_TO_DOUBT = 10


def target_warnings(
    tallies: Mapping[str, TargetTally],
    settled: Mapping[str, Settled],
    lacking: Sequence[str],
    columns: Mapping[str, Column],
    *,
    task: TaskName,
) -> list[WarningMessage]:
    """What is missing from the targets, and how their values were read.

    ``columns`` are those of the file, ``lacking`` the targets that it has no column for.
    """
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
    return found + reading_warnings(tallies, settled, task=task)


def reading_warnings(
    tallies: Mapping[str, TargetTally], settled: Mapping[str, Settled], *, task: TaskName
) -> list[WarningMessage]:
    """How the values of the targets were read, where they may have been meant otherwise."""
    found = []
    for name, target in settled.items():
        tally = tallies[name]
        found += _name_warnings(name, target, unit="word" if isinstance(tally, TagTally) else "row")
        if isinstance(tally, TagTally) and tally.are_bare:
            found.append(_bare_tags(name))
        if isinstance(tally, ListTally) and tally.is_one_hot:
            found.append(_one_hot(name))
        if target.classes and isinstance(tally, NumberTally):
            found.append(_labels_from_floats(name, target.classes))
        if target.classes is not None and tally.first_minus_one:
            found.append(_minus_ones(tally))
    if not any(target.classes is not None for target in settled.values()):
        found += [_numbers(name, tally, task) for name, tally in tallies.items() if isinstance(tally, NumberTally)]
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
    unused = [
        name
        for name, column in columns.items()
        # A column of strings of this name says the splits, also where its first row has none.
        if column.kind == "other" and not (name == SPLIT_COLUMN and ("string" in column.dtype or column.dtype == "null"))
        if not _INDEX.fullmatch(name) and not any(selected.startswith(f"{name}.") for selected in selection.columns)
    ]
    if not unused:
        return []
    message = f"column {listed(unused)} takes no part: the input is {' and '.join(map(repr, selection.inputs))}, "
    if targets := [name for name in selection.target_columns if name != selection.weight_column]:
        message += f"the targets are {listed(targets)}; to predict another, upload the file with target_column=NAME"
    else:
        message += "and there are no targets"
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
            message += f"; {HOW_TO_REGRESS}"
        found.append(WarningMessage(code="class_without_rows", message=message))
    train = split_roles(target.counts).train
    if train is not None and any(target.counts[train]):
        by_class = zip(target.classes, totals, target.counts[train], strict=True)
        elsewhere = [each for each, total, in_train in by_class if total and not in_train]
        if elsewhere:
            message = f"split {train!r} has no row of {listed(elsewhere)} in column {name!r}, and other splits have some"
            found.append(WarningMessage(code="class_not_in_train", message=message))
    return found


def _labels_from_floats(name: str, classes: Sequence[str]) -> WarningMessage:
    message = (
        f"column {name!r} holds floats that are all whole, 0 to {classes[-1]}, as pandas writes integers beside missing values: "
        f"they are read as the classes {listed(classes)}; if they are numbers, name {name!r} in the spec's dataset.numbers"
    )
    return WarningMessage(code="labels_from_floats", message=message)


def _one_hot(name: str) -> WarningMessage:
    message = (
        f"column {name!r} holds lists of 0 and 1 with exactly one 1 in every row: they are read as one class a row, its place; "
        "if a row could have several classes, write their names as lists"
    )
    return WarningMessage(code="labels_from_one_hot", message=message)


def _minus_ones(tally: TargetTally) -> WarningMessage:
    message = (
        f"column {tally.column!r} holds -1 in {tally.num_minus_ones.total():,} rows (the first: {tally.first_minus_one}), which "
        f"are read as without a label; if it is a class, {HOW_TO_NUMBER}"
    )
    return WarningMessage(code="minus_one_is_missing", message=message)


def _numbers(name: str, tally: NumberTally, task: TaskName) -> WarningMessage:
    what = "floats that are all whole" if tally.all_whole else "floats"
    message = (
        f"column {name!r} holds {what}, so a job for {task} learns a number and no classes; if its values are classes, write "
        "them as integers or strings"
    )
    if tally.all_whole:
        message += f" (whole floats are read as classes where they are 0 to {HIGHEST_FLOAT_CLASS} and repeat)"
    return WarningMessage(code="numbers_in_classification", message=message)


def _bare_tags(name: str) -> WarningMessage:
    message = (
        f"column {name!r} holds the tag 'O' and no tag with 'B-' or 'I-': each tag is a class of words, and nothing says where "
        f"an entity begins; if entities are meant, convert each row to IOB2: {HOW_TO_CONVERT_BARE}"
    )
    return WarningMessage(code="tags_without_iob", message=message)


def _name_warnings(name: str, target: Settled, *, unit: str) -> list[WarningMessage]:
    """Doubts about the names of classes: one class written in several ways, words for nothing, numbers in strings."""
    if not target.classes or target.counts is None:
        return []
    totals = [sum(of_class) for of_class in zip(*target.counts.values(), strict=True)]
    rows = dict(zip(target.classes, totals, strict=True))
    found = []
    alike: dict[str, list[str]] = {}
    for each in rows:
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", each).casefold().split()), []).append(each)
    if doubled := [names for names in alike.values() if len(names) > 1]:
        shown = "; ".join(" and ".join(f"{each!r:.100} ({rows[each]:,} {unit}s)" for each in names) for names in doubled[:5])
        message = (
            f"column {name!r} has classes that differ by case or spaces alone: {shown}; if they are one class, write it one way"
        )
        found.append(WarningMessage(code="similar_class_names", message=message))
    if nothing := [each for each in rows if each.casefold() in _WORDS_FOR_NOTHING]:
        shown = ", ".join(f"{each!r} ({rows[each]:,} {unit}s)" for each in nothing)
        message = f"column {name!r} has a class called {shown}; if that means a row without a label, leave the value empty"
        found.append(WarningMessage(code="class_named_missing", message=message))
    if len(rows) > 1 and all(map(_NUMBER.fullmatch, rows)) and not all(map(str.isdecimal, rows)):
        message = (
            f"column {name!r} holds numbers in strings ({listed(list(rows)[:3])}), which are read as names of classes; to learn "
            "them as numbers, write them without quotes, with a decimal point"
        )
        found.append(WarningMessage(code="numbers_in_strings", message=message))
    if 2 * len(rows) > sum(totals) >= _LEAST_ROWS_TO_DOUBT:
        many = f"{len(rows):,} classes in {sum(totals):,} {unit}s, hardly more than one {unit} a class"
        message = f"column {name!r} has {many}; {HOW_TO_REGRESS}"
        found.append(WarningMessage(code="many_classes", message=message))
    return found
