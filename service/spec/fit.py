"""Whether the parts of a spec fit each other and the data: everything that can be known without building a network.

Pure, no torch. Every function answers with all faults at once. What passes here may still be refused by the library that builds a
``transformers`` network, which the worker tries before it trains; what is refused here never builds, or would train on something
else than was meant.
"""

from dataclasses import dataclass

from service.errors import Fault
from service.spec.architectures import (
    Architecture,
    CifarResNet,
    MobileNet,
    ShuffleNet,
    SmallCnn,
    TransformersNetwork,
    Vgg,
    WideResNet,
)
from service.spec.data import DatasetInfo, DatasetSpec, Splits, Task
from service.spec.inputs import Features, LogMelFeatures, WaveformFeatures
from service.spec.job import JobSpec
from service.spec.methods import BETWEEN_SAMPLES, method_names
from service.spec.shapes import InputShape, TokenShape
from service.spec.transformers_fit import transformers_faults

LEAST_PIXELS_SMALL_CNN = 4
"""Two poolings halve the image."""
LEAST_PIXELS_CIFAR = 8
"""For all networks made for 32x32: two halvings leave 2x2 pixels, which batch norm can still normalise when the last batch holds
one sample. Networks with more halvings leave the first of them out on small images."""


@dataclass(frozen=True)
class TeacherInfo:
    """What is known of a teacher that was trained before."""

    task: Task
    classes: list[str]
    input_shape: tuple[int, int, int]
    """(channels, height, width)."""


def check_fit(spec: JobSpec, dataset: DatasetInfo, *, teacher: TeacherInfo | None) -> list[Fault]:
    """Every fault of ``spec`` on ``dataset``, each with a JSON Pointer into the spec.

    ``teacher`` is that of ``job:ID`` or ``model:ID``; None for one that the job trains.
    """
    faults = []
    if spec.task != dataset.task:
        faults.append(Fault(pointer="/task", message=f"the dataset is for {dataset.task}: set that, or name another dataset"))
    faults += _precision_faults(spec)
    faults += _batch_faults(spec)
    faults += _column_faults(spec.dataset, dataset)
    faults += _split_faults(spec.dataset, dataset)
    input_shape = image_shape(dataset, spec.dataset.input)
    if input_shape is None:
        return faults
    num_outputs = len(dataset.classes)
    for role, architecture in (("teacher", spec.teacher.architecture), ("student", spec.student.architecture)):
        if architecture is not None:
            found = architecture_faults(architecture, input_shape=input_shape, num_outputs=num_outputs)
            faults += [Fault(pointer=f"/{role}/architecture{fault.pointer}", message=fault.message) for fault in found]
    if teacher is not None:
        faults += _teacher_faults(spec, dataset, teacher, input_shape=input_shape)
    return faults


def architecture_faults(architecture: Architecture, *, input_shape: InputShape, num_outputs: int) -> list[Fault]:
    """Why the architecture cannot read such inputs; pointers into the architecture."""
    match architecture:
        case SmallCnn():
            return _size_faults(architecture.name, input_shape, least=LEAST_PIXELS_SMALL_CNN)
        case CifarResNet() | WideResNet() | Vgg() | MobileNet() | ShuffleNet():
            return _size_faults(architecture.name, input_shape, least=LEAST_PIXELS_CIFAR)
        case TransformersNetwork():
            return transformers_faults(architecture, input_shape=input_shape, num_outputs=num_outputs)


def usual_features(architecture: Architecture) -> Features:
    """What an architecture reads of sound, where the spec says nothing."""
    reads_waveforms = isinstance(architecture, TransformersNetwork) and architecture.model_type != "audio-spectrogram-transformer"
    return WaveformFeatures(name="waveform") if reads_waveforms else LogMelFeatures()


def image_shape(dataset: DatasetInfo, column: str) -> tuple[int, int, int] | None:
    """(channels, height, width) of an image column; None where it is none."""
    found = dataset.columns.get(column)
    if found is None or found.kind != "image" or found.shape is None or len(found.shape) != 3:
        return None
    height, width, channels = found.shape
    return channels, height, width


def chosen_splits(spec: DatasetSpec, available: list[str]) -> Splits:
    """The dataset's splits that the spec takes: those it names, else those called train, validation and test."""
    if spec.splits is not None:
        return spec.splits
    return Splits(
        validation="validation" if "validation" in available else None,
        test="test" if "test" in available else None,
    )


def _precision_faults(spec: JobSpec) -> list[Fault]:
    message = "fp16 trains on a GPU alone: set resources.gpus to 1, or take bf16, fp32 or auto"
    return [
        Fault(pointer=f"{place}/precision", message=message)
        for place, training in (("/teacher/training", spec.teacher.training), ("/training", spec.training))
        if training is not None and training.precision == "fp16" and spec.resources.gpus == 0
    ]


def _batch_faults(spec: JobSpec) -> list[Fault]:
    names = [name for name in method_names(spec.method) if name in BETWEEN_SAMPLES]
    if spec.training.batch_size > 1 or not names:
        return []
    message = f"{', '.join(names)} compares the samples of a batch with each other: make it 2 or more"
    return [Fault(pointer="/training/batch_size", message=message)]


def _column_faults(spec: DatasetSpec, dataset: DatasetInfo) -> list[Fault]:
    faults = []
    for pointer, name, kind in (
        ("/dataset/input", spec.input, "image"),
        *((f"/dataset/targets/{index}", name, "label") for index, name in enumerate(spec.targets)),
    ):
        of_kind = [column for column, described in dataset.columns.items() if described.kind == kind]
        there = f"its {kind} columns are {_listed(of_kind)}"
        found = dataset.columns.get(name)
        if found is None:
            there += f", of all columns {_listed(list(dataset.columns))}"
            faults.append(Fault(pointer=pointer, message=f"the dataset has no column {name!r}; {there}"))
        elif found.kind != kind:
            faults.append(Fault(pointer=pointer, message=f"column {name!r} holds no {kind}s ({found.dtype}); {there}"))
    return faults


def _split_faults(spec: DatasetSpec, dataset: DatasetInfo) -> list[Fault]:
    splits = chosen_splits(spec, list(dataset.splits))
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    faults, taken = [], dict[str, str]()
    for role, name in named.items():
        if name is None:
            continue
        if name not in dataset.splits:
            message = f"the dataset has no split {name!r}; it has {_listed(list(dataset.splits))}"
            faults.append(Fault(pointer=f"/dataset/splits/{role}", message=message))
        elif dataset.splits[name] == 0:
            faults.append(Fault(pointer=f"/dataset/splits/{role}", message=f"split {name!r} has no rows"))
        elif name in taken:
            message = f"split {name!r} is already the {taken[name]} split; each must have its own samples"
            faults.append(Fault(pointer=f"/dataset/splits/{role}", message=message))
        taken.setdefault(name, role)
    return faults or _held_out_faults(spec, dataset, splits)


def _held_out_faults(spec: DatasetSpec, dataset: DatasetInfo, splits: Splits) -> list[Fault]:
    held_out = [role for role, name in (("validation", splits.validation), ("test", splits.test)) if name is None]
    needed = 1 + len(held_out)
    if not held_out:
        return []
    scarce = [
        (count, dataset.classes[index])
        for index, count in enumerate(dataset.class_counts.get(splits.train, []))
        if 0 < count < needed
    ]
    if not scarce and dataset.splits[splits.train] >= needed:
        return []
    what = f"split {splits.train!r} is to be cut into train, {' and '.join(held_out)}, which takes {needed} samples of each class"
    if scarce:
        count, name = min(scarce)
        others = f" (and {len(scarce) - 1} more classes are as scarce)" if len(scarce) > 1 else ""
        what += f"; class {name!r} has {count}{others}"
    else:
        what += f"; it has {dataset.splits[splits.train]} rows"
    message = f"{what}. Add samples, or give the dataset a {' and a '.join(held_out)} split of its own"
    return [Fault(pointer=f"/dataset/{held_out[0]}_fraction", message=message)]


def _size_faults(name: str, input_shape: InputShape, *, least: int) -> list[Fault]:
    match input_shape:
        case (_, height, width):
            pass
        case _:
            what = "texts" if isinstance(input_shape, TokenShape) else "waveforms"
            message = f"{name} reads images, and spectrograms of sound; these are {what}: take the architecture 'transformers'"
            return [Fault(pointer="/name", message=message)]
    if min(height, width) >= least:
        return []
    message = f"{name} reads images of {least}x{least} pixels and more; these have {height}x{width}: take another architecture"
    return [Fault(pointer="/name", message=message)]


def _teacher_faults(
    spec: JobSpec, dataset: DatasetInfo, teacher: TeacherInfo, *, input_shape: tuple[int, int, int]
) -> list[Fault]:
    pointer = "/teacher/source"
    if teacher.task != spec.task:
        return [Fault(pointer=pointer, message=f"that network is for {teacher.task}, the job for {spec.task}")]
    faults = []
    if teacher.classes != dataset.classes:
        message = f"that network was trained on other classes: {_difference(teacher.classes, dataset.classes)}"
        faults.append(Fault(pointer=pointer, message=message))
    if teacher.input_shape != input_shape:
        wants, has = _shape_text(teacher.input_shape), _shape_text(input_shape)
        message = (
            f"that network reads images of {wants}, and the dataset's are {has}: take a dataset or a teacher of the same shape"
        )
        faults.append(Fault(pointer=pointer, message=message))
    return faults


def _difference(teacher: list[str], dataset: list[str]) -> str:
    if len(teacher) != len(dataset):
        return f"it has {len(teacher)}, the dataset {len(dataset)}"
    if sorted(teacher) == sorted(dataset):
        return "they are the same names in another order"
    index = next(index for index, (one, other) in enumerate(zip(teacher, dataset, strict=True)) if one != other)
    return f"class {index} is {teacher[index]!r} there and {dataset[index]!r} in the dataset"


def _shape_text(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width} pixels with {channels} channel{'' if channels == 1 else 's'}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return (shown + (", …" if len(names) > 20 else "")) or "none"
