"""Describes the data that a spec names as ``builtin:NAME`` or ``file:NAME``, as the spec reads it."""

from collections.abc import Callable
from pathlib import Path

from service.errors import InvalidFile
from service.formats.table import inspect_dataset
from service.spec import JobSpec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo, named_targets
from service.spec.source import split_source


def inspect_source(spec: JobSpec, source: str, *, find_file: Callable[[str], Path], transfer: bool = False) -> DatasetInfo:
    """Describes a dataset that is built in or a file.

    Args:
        source: the spec's dataset, or that of its transfer data or of another job, whose spec it is then.
        find_file: the path of the file that ``file:NAME`` names; may raise InvalidFile.
        transfer: whether the data are read without targets, for the teacher to label.

    Raises:
        InvalidFile: there is no such dataset, or the file cannot be read as one.
    """
    kind, name = split_source(source)
    if kind == "builtin":
        if name not in BUILTIN_DATASETS:
            raise InvalidFile(f"{name!r} is not built in; use one of {', '.join(sorted(BUILTIN_DATASETS))}")
        return BUILTIN_DATASETS[name].info
    path = find_file(name)
    return inspect_dataset(
        path,
        filename=path.name,
        task=spec.task,
        input_column=spec.dataset.inputs,
        target_columns=[] if transfer else named_targets(spec.dataset, spec.task),
        weight_column=None if transfer else spec.dataset.weight,
        numbers=spec.dataset.numbers,
        skip_broken=spec.dataset.skip_broken,
    )
