"""Checks whether the parts of a spec fit each other and the data: everything that is known without building a network.

Pure, no torch. Every function returns all faults at once. What passes here may still be refused by the library that builds a
``transformers`` network, which the worker tries before it trains; what is refused here never builds, or would train on something
else than was meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import FieldError
from service.spec.adapter_fit import adapter_faults
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
from service.spec.augment_fit import augmentation_faults, sound_faults, text_faults, window_faults
from service.spec.canvas import no_canvas_message
from service.spec.class_names import UnknownOutputs, map_outputs
from service.spec.data import DatasetInfo, with_class_names
from service.spec.data_fit import class_name_faults, data_faults, image_shape, output_names, problem_type, target_classes
from service.spec.formats_fit import format_faults
from service.spec.inputs import LEAST_VOCABULARY, Features, LogMelFeatures, WaveformFeatures
from service.spec.job import JobSpec, StudentSpec, TeacherSpec
from service.spec.label_fit import label_faults, learned_without_labels
from service.spec.label_loss_fit import label_loss_faults
from service.spec.memory_fit import memory_faults
from service.spec.method_fit import method_faults
from service.spec.methods import TeacherAssistant
from service.spec.problem_type import OUTPUTS, ProblemType, how_to_agree
from service.spec.require_fit import require_faults
from service.spec.shapes import InputShape, TokenShape
from service.spec.start_fit import start_faults
from service.spec.task_fit import TASK_CHECKS
from service.spec.tasks import TASKS, InputKind, TaskName
from service.spec.teacher_classes import adopted_classes, with_adopted_classes
from service.spec.training import TrainingSpec
from service.spec.transfer_fit import transfer_faults
from service.spec.transformers_fit import classifiers, transformers_faults

LEAST_PIXELS_SMALL_CNN = 4
"""Two poolings halve the image."""
LEAST_PIXELS_CIFAR = 8
"""For all networks made for 32x32: two halvings leave 2x2 pixels, which batch norm can still normalise when the last batch holds
one sample. Networks with more halvings leave the first of them out on small images."""

_READ: dict[InputKind, str] = {"image": "images", "text": "texts", "audio": "sound"}


@dataclass(frozen=True)
class TeacherInfo:
    """Properties of a teacher that was trained before."""

    task: TaskName
    classes: list[str]
    """The names of its outputs."""
    input_shape: tuple[int, int, int] | None
    """(channels, height, width) of its images; None for one that reads texts or sound, or whose processor takes any size."""
    problem_type: ProblemType | None = None
    """What its outputs mean; None where that is not known before it is loaded, and of several targets."""


def check_fit(
    spec: JobSpec, dataset: DatasetInfo, *, teachers: Mapping[str, TeacherInfo], transfer: DatasetInfo | None = None
) -> list[FieldError]:
    """Finds every fault of ``spec`` on ``dataset``, each with a JSON Pointer into the spec.

    ``teachers`` holds those of ``job:ID``, ``model:ID`` and ``file:FOLDER``, and a student's, by source; ``transfer`` is the
    dataset of the transfer rows.
    """
    faults = class_name_faults(spec.dataset, dataset)
    dataset = with_class_names(dataset, spec.dataset.class_names)
    dataset = _with_teachers_classes(spec, dataset, teachers)
    if spec.task != dataset.task and not _are_texts_alone(spec, dataset):
        faults.append(
            FieldError(pointer="/task", message=f"the dataset is for {dataset.task}: set that, or name another dataset")
        )
    faults += _canvas_faults(spec, dataset)
    faults += _augment_faults(spec, dataset)
    faults += method_faults(spec, dataset)
    faults += spec_faults(spec)  # what is known of the task alone says more of a method than its targets do
    faults += data_faults(spec.dataset, dataset, task=spec.task, without_labels=learned_without_labels(spec))
    faults += label_faults(spec, dataset)
    faults += label_loss_faults(spec, dataset)
    faults += transfer_faults(spec, dataset, transfer)
    has_targets = bool(TASKS[spec.task].targets)
    if not spec.dataset.targets and has_targets:
        return faults
    # Classes that are a teacher's which only the worker knows are still to come: two at least.
    num_outputs = (len(output_names(spec.dataset, dataset)) or 2) if has_targets else 0
    for role, network in _networks(spec):
        input_shape = _input_shape(spec, network, dataset)
        if network.architecture is not None and input_shape is not None:
            found = architecture_faults(network.architecture, input_shape=input_shape, num_outputs=num_outputs, task=spec.task)
            faults += [FieldError(pointer=f"/{role}/architecture{fault.pointer}", message=fault.message) for fault in found]
        elif network.architecture is not None and TASKS[spec.task].input_kind == "text":
            faults += _unread_text_faults(spec, network.architecture, pointer=f"/{role}/architecture")
    faults += _assistant_faults(spec, dataset, num_outputs=num_outputs)
    for place, network in _networks(spec):
        if (known := teachers.get(network.source)) is not None:
            if isinstance(network, StudentSpec) or network.training is not None:
                faults += _body_faults(spec, known, pointer=f"/{place}/source")
            else:
                faults += _teacher_faults(spec, dataset, network, known, pointer=f"/{place}/source")
    return faults


def spec_faults(spec: JobSpec) -> list[FieldError]:
    """Finds the faults that no data mend: all that is known of a job whose data only workers read."""
    faults = list(format_faults(spec))
    faults += _precision_faults(spec)
    faults += start_faults(spec)
    faults += memory_faults(spec)
    faults += require_faults(spec)
    faults += adapter_faults(spec)
    faults += _export_faults(spec)
    faults += TASK_CHECKS[spec.task](spec) if spec.task in TASK_CHECKS else []
    return faults + _reading_faults(spec)


def _with_teachers_classes(spec: JobSpec, dataset: DatasetInfo, teachers: Mapping[str, TeacherInfo]) -> DatasetInfo:
    """The dataset, with the classes of its targets by the known teachers where its labels do not tell them."""
    if not TASKS[spec.task].targets:
        return dataset
    for teacher in spec.teachers.values():
        if teacher.source in teachers and teachers[teacher.source].task == spec.task:
            classes = {name: target_classes(dataset, name) for name in spec.dataset.targets if name in dataset.columns}
            adopted = adopted_classes(classes, teachers[teacher.source].classes, teaches=teacher.targets)
            dataset = with_adopted_classes(dataset, adopted)
    return dataset


def _networks(spec: JobSpec) -> list[tuple[str, TeacherSpec | StudentSpec]]:
    """Every network of the spec, by its place."""
    return [*spec.teachers.items(), ("student", spec.student)]


def _are_texts_alone(spec: JobSpec, dataset: DatasetInfo) -> bool:
    """A causal language model without answers, or an embedding, learns from the texts of any dataset that has some."""
    takes_any = not TASKS[spec.task].targets and not spec.dataset.targets
    return takes_any and TASKS[dataset.task].input_kind == TASKS[spec.task].input_kind


def _unread_text_faults(spec: JobSpec, architecture: Architecture, *, pointer: str) -> list[FieldError]:
    """The tokenizer of a given teacher is not known yet; that the teacher reads texts is."""
    known = classifiers(spec.task)
    if isinstance(architecture, TransformersNetwork) and architecture.model_type in known:
        return []
    is_library = isinstance(architecture, TransformersNetwork)
    name = architecture.model_type if isinstance(architecture, TransformersNetwork) else architecture.name
    message = f"{name} reads no texts: take the architecture 'transformers' with a model_type of {', '.join(known)}"
    return [FieldError(pointer=f"{pointer}/{'model_type' if is_library else 'name'}", message=message)]


def _assistant_faults(spec: JobSpec, dataset: DatasetInfo, *, num_outputs: int) -> list[FieldError]:
    """The assistants read as the student does."""
    assistants = spec.method.assistants if isinstance(spec.method, TeacherAssistant) else []
    faults = []
    for index, architecture in enumerate(assistants):
        network = spec.student.model_copy(update={"architecture": architecture, "features": None})
        input_shape = _input_shape(spec, network, dataset)
        if input_shape is not None:
            found = architecture_faults(architecture, input_shape=input_shape, num_outputs=num_outputs, task=spec.task)
            place = f"/method/assistants/{index}"
            faults += [FieldError(pointer=f"{place}{fault.pointer}", message=fault.message) for fault in found]
    return faults


def _export_faults(spec: JobSpec) -> list[FieldError]:
    if spec.exports and (student := TASKS[spec.task].one_form):
        message = f"{student} is given out as its library's folder alone: leave exports empty"
        return [FieldError(pointer="/exports", message=message)]
    return []


def _reading_faults(spec: JobSpec) -> list[FieldError]:
    """Tokenizers are for texts, features for sound, and a text network that is trained here cannot do without a tokenizer."""
    kind = TASKS[spec.task].input_kind
    faults = []
    for role, network in _networks(spec):
        if kind != "text" and network.tokenizer is not None:
            message = f"a tokenizer is for texts, and {spec.task} reads {_READ[kind]}: leave it out"
            faults.append(FieldError(pointer=f"/{role}/tokenizer", message=message))
        elif network.tokenizer is not None and network.tokenizer.vocab_size < LEAST_VOCABULARY[network.tokenizer.train]:
            message = (
                f"{network.tokenizer.train} has {LEAST_VOCABULARY[network.tokenizer.train]} tokens before it learns any, "
                f"and vocab_size is {network.tokenizer.vocab_size}: raise it"
            )
            faults.append(FieldError(pointer=f"/{role}/tokenizer/vocab_size", message=message))
        if kind != "audio" and network.features is not None:
            message = f"features are for sound, and {spec.task} reads {_READ[kind]}: leave them out"
            faults.append(FieldError(pointer=f"/{role}/features", message=message))
        if kind == "audio" and network.features is not None and network.architecture is not None:
            made_for = usual_features(network.architecture).name
            if network.features.name != made_for:
                message = (
                    f"{network.architecture.name} reads {made_for} features, not {network.features.name}: name those, or none"
                )
                faults.append(FieldError(pointer=f"/{role}/features/name", message=message))
    for place, teacher in spec.teachers.items():
        if kind == "text" and teacher.source == "train" and teacher.tokenizer is None:
            message = "a teacher of texts that is trained here needs one, such as {train: wordpiece, vocab_size: 8000}"
            faults.append(FieldError(pointer=f"/{place}/tokenizer", message=message))
    return faults


def _canvas_faults(spec: JobSpec, dataset: DatasetInfo) -> list[FieldError]:
    """Images of several sizes without a size that all are fitted to; that of a given network the worker reads."""
    column = dataset.columns.get(spec.dataset.inputs[0])
    sizes = None if column is None else column.sizes
    if sizes is None or (spec.dataset.image is not None and spec.dataset.image.sides is not None):
        return []
    if any(network.source not in _MADE_HERE for _, network in _networks(spec)):
        return []
    return [FieldError(pointer="/dataset/image", message=no_canvas_message(sizes.least, sizes.greatest))]


_MADE_HERE = ("train", "random", "teacher-layers")


def _augment_faults(spec: JobSpec, dataset: DatasetInfo) -> list[FieldError]:
    """A teacher that is not trained here is checked by the worker, which knows its inputs."""
    faults: list[FieldError] = []
    trained = {place: teacher for place, teacher in spec.teachers.items() if teacher.source == "train"}
    trainings: list[tuple[str, TrainingSpec | None, Mapping[str, TeacherSpec | StudentSpec]]] = [
        ("/training", spec.training, {"student": spec.student, **trained})
    ]
    for place, teacher in trained.items():
        trainings.append((f"/{place}/training", teacher.training, {place: teacher}))
    for place, training, networks in trainings:
        if training is None or not training.augment:
            continue
        pointer = f"{place}/augment"
        shape = image_shape(spec.dataset, dataset)
        found = augmentation_faults(training.augment, task=spec.task, image_shape=shape, pointer=pointer)
        if spec.dataset.image is not None or any(column.sizes is not None for column in dataset.columns.values()):
            found += window_faults(training.augment, pointer=pointer)
        match TASKS[spec.task].input_kind:
            case "audio" if not found:
                read = {
                    role: network.features or usual_features(network.architecture)
                    for role, network in networks.items()
                    if network.architecture is not None
                }
                found += sound_faults(training.augment, read, pointer=pointer)
            case "text" if not found:
                tokenizers = {role: network.tokenizer or spec.first_teacher.tokenizer for role, network in networks.items()}
                if spec.student.tokenizer is not None:
                    tokenizers |= dict.fromkeys(spec.teachers.keys() - trained.keys())
                found += text_faults(training.augment, tokenizers, pointer=pointer)
            case _:
                pass
        faults += found
    return faults


def _input_shape(spec: JobSpec, network: TeacherSpec | StudentSpec, dataset: DatasetInfo) -> InputShape | None:
    """Shape of the network's input, as far as it is known before its tokenizer is trained; None if it is not."""
    match TASKS[spec.task].input_kind:
        case "image":
            return image_shape(spec.dataset, dataset)
        case "text":
            tokenizer = network.tokenizer or spec.first_teacher.tokenizer
            if tokenizer is None:
                return None
            return TokenShape(
                tokenizer.vocab_size,
                min(tokenizer.max_length, spec.dataset.row_tokens or tokenizer.max_length),
                pad=0 if tokenizer.train == "wordpiece" else 1,
            )
        case "audio" if network.architecture is not None:
            features = network.features or usual_features(network.architecture)
            longest = (
                dataset.columns[spec.dataset.inputs[0]].longest_seconds if spec.dataset.inputs[0] in dataset.columns else None
            )
            seconds = min(spec.dataset.clip_seconds, longest or spec.dataset.clip_seconds)
            if isinstance(features, LogMelFeatures):
                return 1, max(1, round((seconds - 0.015) / 0.01)), features.mels
            return (round(seconds * features.sample_rate),)
    return None


def architecture_faults(
    architecture: Architecture, *, input_shape: InputShape, num_outputs: int, task: TaskName | None = None
) -> list[FieldError]:
    """Finds the reasons why the architecture cannot read such inputs, with pointers into the architecture.

    ``task`` is what the network is for; None for what the shape says.
    """
    match architecture:
        case SmallCnn():
            return _size_faults(architecture.name, input_shape, least=LEAST_PIXELS_SMALL_CNN)
        case CifarResNet() | WideResNet() | Vgg() | MobileNet() | ShuffleNet():
            return _size_faults(architecture.name, input_shape, least=LEAST_PIXELS_CIFAR)
        case TransformersNetwork():
            return transformers_faults(architecture, input_shape=input_shape, num_outputs=num_outputs, task=task)


def usual_features(architecture: Architecture) -> Features:
    """Features that an architecture reads of sound, unless the spec names others."""
    reads_waveforms = isinstance(architecture, TransformersNetwork) and architecture.model_type != "audio-spectrogram-transformer"
    return WaveformFeatures(name="waveform") if reads_waveforms else LogMelFeatures()


def _precision_faults(spec: JobSpec) -> list[FieldError]:
    message = "fp16 trains on a GPU alone: set resources.gpus to 1, or take bf16, fp32 or auto"
    return [
        FieldError(pointer=f"{place}/precision", message=message)
        for place, training in (
            *((f"/{place}/training", teacher.training) for place, teacher in spec.teachers.items()),
            ("/training", spec.training),
        )
        if training is not None and training.precision == "fp16" and spec.resources.gpus == 0
    ]


def _size_faults(name: str, input_shape: InputShape, *, least: int) -> list[FieldError]:
    match input_shape:
        case (_, height, width):
            pass
        case _:
            what = "texts" if isinstance(input_shape, TokenShape) else "waveforms"
            message = f"{name} reads images, and spectrograms of sound; these are {what}: take the architecture 'transformers'"
            return [FieldError(pointer="/name", message=message)]
    if min(height, width) >= least:
        return []
    message = f"{name} reads images of {least}x{least} pixels and more; these have {height}x{width}: take another architecture"
    return [FieldError(pointer="/name", message=message)]


_TUNE = "give it a training, by which it is fine-tuned with a head of the job's own before it teaches"


def _teacher_faults(
    spec: JobSpec, dataset: DatasetInfo, asked: TeacherSpec, teacher: TeacherInfo, *, pointer: str
) -> list[FieldError]:
    if teacher.task != spec.task:
        untuned = f"that network is for {teacher.task}, the job for {spec.task}"
        remedy = "" if _body_faults(spec, teacher, pointer=pointer) else f": {_TUNE}"
        return [FieldError(pointer=pointer, message=f"{untuned}{remedy}")]
    faults = []
    input_shape = image_shape(spec.dataset, dataset)
    if TASKS[spec.task].targets and dataset.columns.keys() >= set(spec.dataset.targets):
        classes = {name: target_classes(dataset, name) for name in spec.dataset.targets}
        try:
            map_outputs(classes, teacher.classes, teaches=asked.targets)
        except UnknownOutputs as error:
            message = f"that network was trained on other classes: {error.message}. {error.hint} Or {_TUNE}"
            faults.append(FieldError(pointer=pointer, message=message))
    ours = problem_type(spec.dataset, dataset)
    if teacher.problem_type is not None and ours is not None and teacher.problem_type != ours:
        message = f"that network has {OUTPUTS[teacher.problem_type]} at each output, the dataset {OUTPUTS[ours]}"
        faults.append(FieldError(pointer=pointer, message=f"{message}. {how_to_agree(ours)} Or {_TUNE}"))
    if input_shape is not None and teacher.input_shape is not None and teacher.input_shape != input_shape:
        wants, has = _shape_text(teacher.input_shape), _shape_text(input_shape)
        message = (
            f"that network reads images of {wants}, and the dataset's are {has}: take a dataset or a teacher of the same shape"
        )
        faults.append(FieldError(pointer=pointer, message=message))
    return faults


def _body_faults(spec: JobSpec, network: TeacherInfo, *, pointer: str) -> list[FieldError]:
    """Of a network that is trained the body alone counts: it gets the job's outputs, and another task's network has the same."""
    theirs, ours = TASKS[network.task].input_kind, TASKS[spec.task].input_kind
    if theirs == ours:
        return []
    message = f"that network reads {_READ[theirs]}, and {spec.task} reads {_READ[ours]}: name one that does"
    return [FieldError(pointer=pointer, message=message)]


def _shape_text(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width} pixels with {channels} channel{'' if channels == 1 else 's'}"
