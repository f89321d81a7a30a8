"""Checks of the student, its method and its exports that run before the teacher is trained, not an hour later."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory

import torch
from torch import nn

from worker.data import Split, first
from worker.data.augment.choose import check_same_views
from worker.data.preprocessing import same_tokens
from worker.data.tensors import only_tensor, to_device
from worker.errors import JobFault
from worker.evaluation.precision import choose_precision
from worker.export.adapter import check_adapter, export_adapter
from worker.export.folder import check_export, export_network
from worker.export.forms import write_onnx
from worker.export.int8 import quantize_int8
from worker.job.bias import check_bias_place
from worker.job.error_mapping import as_spec_error, as_training_fault
from worker.job.networks import Networks
from worker.job.roles import STUDENT, adapter_folder
from worker.job.starts import GivenStart
from worker.methods import compares_layers
from worker.methods.layer_mapping import LayerMapping
from worker.models import UnfitArchitecture, built_from, num_parameters
from worker.models.adapters import adapter_of, merged
from worker.models.build_transformers import LIBRARY_ERRORS
from worker.models.output_layer import NoOutputLayer, find_output_layer
from worker.tasks import TASKS
from worker.trained import TrainedNetwork
from worker.training.kept_weights import kept, restore
from worker.training.trainable import check_trainable

logger = logging.getLogger(__name__)

_MOST_SAVED_PARAMETERS = 100_000_000
"""A larger student takes seconds to write and to load; it is checked when it is trained."""
_SAVED_SAMPLES = 32
_BYTES_OF_A_WEIGHT = 4
_COPIES_OF_A_TRAINING = 10
"""Weights, best weights, two moments and a gradient, in a checkpoint and in the one that replaces it."""
_MOVED = 0.01
_OTHER_NETWORK = "Or give it another architecture, of images small-cnn, of texts bert, of sound wav2vec2."


def check_early(networks: Networks, student: nn.Module) -> None:
    """Checks everything that can fail without a trained teacher; ``student`` is an untrained one, whose weights stay as they are.

    Raises JobFault or UnusableData.
    """
    choose_precision(networks.spec.training.precision, networks.device)
    for role in networks.specs.teachers:
        if not networks.specs.is_trained(role):
            networks.load_pretrained(role)
    # As its users will have it: the parts that only training needs are folded away in the end.
    plain = (
        student if networks.specs.is_plain(STUDENT) else networks.build_plain(STUDENT, num_outputs=networks.data.targets.width)
    )
    _check_places_for_units(networks, plain)
    with _as_if_trained(plain):
        untrained = networks.as_trained(STUDENT, plain)
        _check_student_folder(networks, untrained)
    plain = untrained.network
    if networks.spec.student.source == "teacher-layers":
        _check_teacher_layers(networks, student)
    teacher = networks.preprocessing_of(next(iter(networks.specs.teachers)))
    TASKS[networks.data.task].check_method(networks.spec, networks.preprocessing(STUDENT), teacher)
    if networks.spec.evaluation.correct_bias:
        check_bias_place(networks, plain)
    _check_trainings(networks)
    _check_exports(networks, plain)
    _check_augmentation(networks)
    if compares_layers(networks.spec.method):
        method = _map_layers(networks, student)
        with as_spec_error("/method"):
            method.objective(targets=networks.data.targets, labels=networks.data.splits["train"].labels)


def _map_layers(networks: Networks, student: nn.Module) -> LayerMapping:
    """Maps the layers of the student and of its teacher, which is built only if its shapes depend on values of its inputs."""
    role = next(iter(networks.specs.teachers))
    reads = networks.preprocessing_of(role)
    if networks.specs.is_trained(role):
        try:
            return networks.map_layers(student, networks.build_on_meta(role), reads)
        except LIBRARY_ERRORS as error:
            logger.debug("The %s is built to find its layers' shapes.", role, exc_info=error)
    return networks.map_layers(student, networks.build_or_load(role), reads)


def _check_teacher_layers(networks: Networks, student: nn.Module) -> None:
    """Raises JobFault if the student's layers differ from its teacher's, or its tokenizer does."""
    role = next(iter(networks.specs.teachers))
    teacher = networks.build_or_load(role)
    if adapter_of(teacher) is not None:
        teacher = merged(teacher)  # as it will be when its layers are taken
    if not same_tokens(networks.preprocessing(STUDENT), networks.preprocessing_of(role)):
        raise JobFault(
            "invalid_spec",
            "A student with its teacher's layers uses its teacher's tokenizer: leave student.tokenizer out.",
            details={"pointer": "/student/tokenizer"},
        )
    before = kept(student)
    networks.copy_teacher_layers(student, teacher)
    restore(student, before)


def _check_trainings(networks: Networks) -> None:
    """Raises JobFault if a network cannot be trained as the spec says."""
    for role in networks.specs.plan.trained:
        spec, start = networks.specs.training(role), networks.start(role)
        made = start.made() if spec.freeze and isinstance(start, GivenStart) else ()
        try:
            network = networks.build_on_meta(role)
        except UnfitArchitecture:
            network = networks.build_plain(role, num_outputs=networks.data.targets.width)
        with as_training_fault(str(role), networks.specs.training_path(role)):
            check_trainable(network, spec, made=made)


def _check_places_for_units(networks: Networks, student: nn.Module) -> None:
    """Raises JobFault if the job trains a network that cannot predict the job's numbers in the data's units."""
    targets = networks.data.targets
    if targets.units is None:
        return
    far = [target for target in targets if target.mean]
    few = first(networks.data.splits["train"].inputs, 2)
    for role in networks.specs.plan.trained:
        reads = networks.preprocessing(role)
        # Whether a layer's outputs are the network's is told by values: a network without any would not do.
        network = student if role == STUDENT else networks.build_plain(role, num_outputs=targets.width)
        inputs = to_device(reads(reads.prepare(few)), next(network.parameters()).device)
        try:
            is_shiftable = find_output_layer(network, inputs).is_shiftable
        except NoOutputLayer as error:
            raise JobFault("invalid_spec", f"The {role} cannot predict numbers: {error}.", hint=_OTHER_NETWORK) from error
        if far and not is_shiftable:
            numbers = ", ".join(f"{each.name!r} (mean {each.mean:.6g}, deviation {each.scale:.6g})" for each in far)
            raise JobFault(
                "invalid_spec",
                f"The {role} cannot predict numbers this far from 0: {numbers}. Its output layer has no bias.",
                hint=f"Subtract the mean from the column, or one near it. {_OTHER_NETWORK}",
                details={"pointer": networks.start(role).pointer},
            )


def _check_exports(networks: Networks, student: nn.Module) -> None:
    """Exports the untrained student. Raises JobFault if it cannot be written as ONNX."""
    if networks.spec.exports:
        with TemporaryDirectory(dir=networks.scratch) as folder, as_spec_error("/exports"):
            path, samples = Path(folder) / "student.onnx", networks.samples(STUDENT, "test")
            write_onnx(student, path, samples=samples, data=networks.data)
            if "onnx-int8" in networks.spec.exports:
                quantize_int8(path, Path(folder) / "student.int8.onnx", calibration=only_tensor(samples.inputs_from(0, 32)).cpu())


@contextmanager
def _as_if_trained(student: nn.Module) -> Iterator[None]:
    """Within the block the updates of an adapter do something, which before the first step they do not."""
    if adapter_of(student) is None:
        yield
        return
    before, generator = kept(student), torch.Generator().manual_seed(0)
    moved = {name: weight + _MOVED * torch.randn(weight.shape, generator=generator) for name, weight in before.items()}
    restore(student, moved)
    yield
    restore(student, before)


def _check_student_folder(networks: Networks, untrained: TrainedNetwork) -> None:
    """Writes the untrained student as its users will load it, and its adapter, and loads them.

    Raises JobFault if one gives other outputs.
    """
    is_own = built_from(untrained.network).kind is None and untrained.adapted is None
    if is_own or num_parameters(untrained.network) > _MOST_SAVED_PARAMETERS:
        return
    test = networks.data.splits["test"]
    few = replace(
        test,
        inputs=first(test.inputs, _SAVED_SAMPLES),
        labels=test.labels[:_SAVED_SAMPLES],
        answers=None if test.answers is None else test.answers[:_SAVED_SAMPLES],
        is_packed=False,
    )
    with TemporaryDirectory(dir=networks.scratch) as made:
        folder, targets = Path(made) / "student", networks.data.targets
        export_network(untrained, folder, data=networks.data)
        try:
            check_export(
                folder,
                split=few,
                targets=targets,
                task=TASKS[networks.data.task],
                device=networks.device,
                expected=untrained.outputs(few),
            )
        except JobFault as fault:
            fault.details.setdefault("pointer", networks.start(STUDENT).pointer)
            raise
        if untrained.adapted is not None:
            _check_adapter(networks, untrained, Path(made), split=few)


def _check_adapter(networks: Networks, untrained: TrainedNetwork, made: Path, *, split: Split) -> None:
    adapter, merged = made / adapter_folder(STUDENT), made / str(STUDENT)
    try:
        export_adapter(untrained, adapter, data=networks.data)
        base = partial(networks.base, STUDENT)
        check_adapter(adapter, untrained, merged=merged, base=base, split=split, data=networks.data)
    except JobFault as fault:
        fault.details.setdefault("pointer", "/student/adapter")
        raise


def check_disk(networks: Networks) -> None:
    """Raises JobFault if this host's disk has no room for the checkpoints and the result of the networks that are trained."""
    sizes, kept_sizes = [], []
    for role in networks.specs.plan.trained:
        try:
            on_meta = networks.build_on_meta(role)
        except UnfitArchitecture:
            return  # said when it is built
        sizes.append(num_parameters(on_meta) * _BYTES_OF_A_WEIGHT)
        adapter = adapter_of(on_meta)
        kept_sizes.append(sizes[-1] if adapter is None else adapter.num_parameters * _BYTES_OF_A_WEIGHT)
    needed = 2 * sum(sizes) + _COPIES_OF_A_TRAINING * max(kept_sizes)
    free = disk_usage(networks.scratch).free
    if free < needed:
        raise JobFault(
            "artifacts_unavailable",
            f"The checkpoints and the result of this job take about {needed / 2**30:.2f} GiB, and the disk of this host has "
            f"{free / 2**30:.2f} GiB free in {networks.scratch}.",
            hint="Free some space there, or take smaller networks.",
            retryable=True,
        )


def _check_augmentation(networks: Networks) -> None:
    """Raises JobFault if an augmentation does not fit a network's inputs, or gives the teachers another view than the student."""
    for role in filter(networks.specs.is_trained, networks.specs.teachers):
        networks.views(role)
    if not networks.spec.training.augment:
        return
    teachers = [networks.preprocessing_of(role) for role in networks.specs.teachers]
    for role in (*networks.specs.chain, STUDENT):
        views, reads = networks.views(role), networks.preprocessing(role)
        for teacher in teachers:
            if views is not None:
                with as_spec_error("/training/augment"):
                    check_same_views(views, networks.data.splits["train"].inputs, student=reads, teacher=teacher)
        teachers = [reads]
