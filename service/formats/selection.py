"""Which columns of a file are read, by the task and by who names them."""

from collections.abc import Sequence
from typing import Literal

from service.errors import InvalidFile
from service.formats.chunk import ColumnSelection
from service.spec.tasks import TASKS, TaskName


def select_columns(
    task: TaskName,
    *,
    input_column: str | Sequence[str] | None,
    target_columns: Sequence[str] | None,
    weight_column: str | None = None,
    max_unpacked_bytes: int,
    skip_broken: bool = False,
) -> ColumnSelection:
    """Selects the columns to read; by default those of the task. The input is one column, or the two of a pair of texts.

    Raises:
        InvalidFile: these columns cannot be selected together.
    """
    inputs = _checked_inputs(task, input_column or TASKS[task].input_columns[0])
    targets = TASKS[task].targets if target_columns is None else tuple(target_columns)
    if twice := [name for name in targets if targets.count(name) > 1]:
        raise InvalidFile(f"target {twice[0]!r} is named twice; name each once")
    if both := [name for name in inputs if name in targets]:
        raise InvalidFile(f"the input and a target are both column {both[0]!r}; name two columns")
    most = TASKS[task].max_targets
    if len(targets) > most:
        raise InvalidFile(f"there are {len(targets)} targets; a {task} dataset has at most {most}")
    if weight_column is not None:
        targets = (*targets, _checked_weight(task, weight_column, (*inputs, *targets)))
    without_target: Literal["refuse", "doubt"] = "doubt" if target_columns is None else "refuse"
    return ColumnSelection(
        task,
        inputs,
        targets,
        max_unpacked_bytes,
        weight_column,
        skip_broken=skip_broken,
        without_target=without_target,
    )


def _checked_inputs(task: TaskName, columns: str | Sequence[str]) -> tuple[str, ...]:
    inputs = (columns,) if isinstance(columns, str) else tuple(columns)
    if len(inputs) > 1 and not TASKS[task].takes_pairs:
        raise InvalidFile(f"a {task} reads one column, and {' and '.join(map(repr, inputs))} are named as its input; name one")
    if len(inputs) not in (1, 2) or len(set(inputs)) != len(inputs):
        raise InvalidFile("the input is one column, or two different ones whose texts are read as a pair")
    return inputs


def _checked_weight(task: TaskName, name: str, others: Sequence[str]) -> str:
    if not TASKS[task].takes_weights:
        raise InvalidFile(f"the rows of a {task} dataset have no weights: leave the weight column out")
    if name in others:
        raise InvalidFile(f"column {name!r} is an input or a target, and the weight too; name another")
    return name
