"""Checks whether a student can begin with its teacher's layers, or as a network that exists, as far as the spec alone decides it.

Pure, no torch.
"""

from collections.abc import Iterator
from typing import Any

from service.errors import FieldError
from service.spec.architectures import TransformersNetwork
from service.spec.job import JobSpec
from service.spec.methods import BornAgain, DeepMutual, DistillationNetwork, TeacherAssistant, terms_of
from service.spec.source import is_given
from service.spec.tasks import TASKS
from service.spec.transformers_fit import config_fields, task_of

_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Names of the number of layers in a config."""
_WIDTHS = (
    "hidden_size", "n_embd", "dim", "intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "num_attention_heads", "n_head",
    "n_heads", "num_heads", "num_key_value_heads", "patch_size",
)  # fmt: skip
"""Fields of a config that decide the shapes of a layer's weights, and what they mean."""


def start_faults(spec: JobSpec) -> list[FieldError]:
    """Finds every fault of a student that does not begin at random; the worker, which has the networks, decides finally."""
    if is_given(spec.student.source):
        return list(_given_faults(spec))
    if spec.student.source != "teacher-layers":
        return []
    faults = list(_kind_faults(spec))
    return faults or [*_width_faults(spec), *_depth_faults(spec)]


def _given_faults(spec: JobSpec) -> Iterator[FieldError]:
    """The methods that make networks of the student's own kind, or widen it, need one that the job builds."""
    for method in terms_of(spec.method):
        if isinstance(method, BornAgain | TeacherAssistant | DistillationNetwork | DeepMutual):
            message = f"{method.name} builds its networks itself, and the student exists: take random, or another method"
            yield FieldError(pointer="/student/source", message=message)


def _kind_faults(spec: JobSpec) -> Iterator[FieldError]:
    student, teacher = spec.student.built, spec.first_teacher.architecture
    if len(spec.teachers) > 1:
        message = "teacher-layers takes the layers of one teacher, and there are several: take random"
        yield FieldError(pointer="/student/source", message=message)
    if isinstance(spec.method, DeepMutual | BornAgain | TeacherAssistant):
        message = f"teacher-layers needs one finished teacher, and {spec.method.name} has none before the student: take random"
        yield FieldError(pointer="/student/source", message=message)
    if not isinstance(student, TransformersNetwork):
        message = f"teacher-layers takes the blocks of a transformers network, and the student is a {student.name}: take random"
        yield FieldError(pointer="/student/source", message=message)
    elif teacher is not None and not (isinstance(teacher, TransformersNetwork) and teacher.model_type == student.model_type):
        kind = teacher.model_type if isinstance(teacher, TransformersNetwork) else teacher.name
        message = (
            f"teacher-layers takes layers of its own kind, and the teacher is a {kind}: make the student one, or take random"
        )
        yield FieldError(pointer="/student/architecture", message=message)
    reads_text = TASKS[spec.task].input_kind == "text"
    if reads_text and spec.student.tokenizer is not None and spec.student.tokenizer != spec.first_teacher.tokenizer:
        message = "a student with its teacher's layers reads as its teacher: leave its tokenizer out"
        yield FieldError(pointer="/student/tokenizer", message=message)


def _width_faults(spec: JobSpec) -> Iterator[FieldError]:
    student, teacher = _values(spec.student.architecture), _values(spec.first_teacher.architecture)
    for name in _WIDTHS:
        if name in teacher and name in student and student[name] != teacher[name]:
            message = f"{name} is {student[name]}, and {teacher[name]} in the teacher, whose layers are taken: make it the same"
            yield FieldError(pointer=f"/student/architecture/config/{name}", message=message)


def _depth_faults(spec: JobSpec) -> Iterator[FieldError]:
    ours, theirs = (_depth(_values(network.architecture)) for network in (spec.student, spec.first_teacher))
    layers = spec.student.layers
    if layers is not None and ours is not None and len(layers) != ours:
        message = f"these are {len(layers)} layers, and the student has {ours}: name one of the teacher's for each"
        yield FieldError(pointer="/student/layers", message=message)
    for index, layer in enumerate(layers or []):
        if theirs is not None and layer >= theirs:
            message = f"the teacher has {theirs} layers, 0 to {theirs - 1}, and no layer {layer}"
            yield FieldError(pointer=f"/student/layers/{index}", message=message)
    if layers is None and ours is not None and theirs is not None and ours > theirs:
        message = f"the student has {ours} layers and the teacher {theirs}: make it as deep or shallower, or name layers"
        yield FieldError(pointer="/student/source", message=message)


def _values(architecture: Any) -> dict[str, Any]:
    """The config's fields with their defaults; empty for a network that is not of transformers, or is unknown."""
    if not isinstance(architecture, TransformersNetwork) or task_of(architecture.model_type) is None:
        return {}
    return {name: field["default"] for name, field in config_fields(architecture.model_type).items()} | architecture.config


def _depth(values: dict[str, Any]) -> int | None:
    return next((values[name] for name in _DEPTHS if isinstance(values.get(name), int)), None)
