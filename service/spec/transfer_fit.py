"""Whether the transfer rows and the correction of the bias fit a job: every fault at its place. Pure, no torch."""

from service.errors import FieldError
from service.spec.data import WITH_CLASSES, Column, DatasetInfo
from service.spec.data_fit import listed, transfer_split
from service.spec.job import JobSpec
from service.spec.tasks import TASKS

_POINTER = "/dataset/transfer"


def transfer_faults(spec: JobSpec, dataset: DatasetInfo, transfer: DatasetInfo | None) -> list[FieldError]:
    """Finds the faults of ``dataset.transfer`` beside the dataset itself, and of ``evaluation.correct_bias``.

    ``transfer`` describes the source of the transfer rows; None if the spec names none, or one that is unknown.
    """
    faults = _bias_faults(spec, dataset)
    if spec.dataset.transfer is None:
        return faults
    if not TASKS[spec.task].takes_transfer_rows:
        message = f"a {spec.task} learns from texts alone, which need no labels: put all texts into one dataset, without transfer"
        return [*faults, FieldError(pointer=_POINTER, message=message)]
    if spec.training.batch_size < 2:
        message = "each batch holds a sample of the training split and a transfer row: make it 2 or more"
        faults.append(FieldError(pointer="/training/batch_size", message=message))
    if transfer is not None:
        faults += [FieldError(pointer=_POINTER, message=message) for message in _misfits(spec, dataset, transfer)]
    return faults


def _misfits(spec: JobSpec, dataset: DatasetInfo, transfer: DatasetInfo) -> list[str]:
    messages = []
    split = transfer_split(spec.dataset, list(transfer.splits))
    if split is None:
        messages.append(
            f"transfer rows are the dataset's training split, and it has {listed(list(transfer.splits))}: call one 'train'"
        )
    elif transfer.splits[split] == 0:
        messages.append(f"its split {split!r} has no rows")
    kinds = TASKS[spec.task].input_columns
    for column in spec.dataset.inputs:
        ours, theirs = dataset.columns.get(column), transfer.columns.get(column)
        if theirs is None or theirs.kind not in kinds:
            of_kind = [name for name, described in transfer.columns.items() if described.kind in kinds]
            kind = " and ".join(kinds)
            messages.append(
                f"it has no {kind} column {column!r}, which /dataset/input names for both; its {kind} columns are "
                f"{listed(of_kind)}"
            )
        elif ours is not None and ours.kind == "image" and not _are_fitted(spec, ours) and _form(ours) != _form(theirs):
            messages.append(f"its images are {_form(theirs)}, the dataset's {_form(ours)}: store both in the same form")
    return messages


def _are_fitted(spec: JobSpec, ours: Column) -> bool:
    """Whether the images of both are fitted to one size; whether their kinds of pixels are alike the worker says."""
    return spec.dataset.image is not None or ours.sizes is not None


def _form(column: Column) -> str:
    if column.sizes is not None:
        return f"of several sizes ({column.dtype})"
    return f"{'x'.join(map(str, column.shape or []))} ({column.dtype})"


def _bias_faults(spec: JobSpec, dataset: DatasetInfo) -> list[FieldError]:
    if not spec.evaluation.correct_bias:
        return []
    kinds = {column.kind for name in spec.dataset.targets if (column := dataset.columns.get(name)) is not None}
    if TASKS[spec.task].targets and (not kinds or kinds & set(WITH_CLASSES) - {"labels"}):
        return []
    message = (
        "it sets how often the student chooses each class, and this job has no classes that exclude each other: leave it out"
    )
    return [FieldError(pointer="/evaluation/correct_bias", message=message)]
