"""Checks of the student, its method and its exports that run before the teacher is trained, not an hour later."""

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from worker.data import first
from worker.data.augment.choose import check_same_views
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.text import same_tokens
from worker.errors import JobFault
from worker.evaluation.precision import choose_precision
from worker.export.forms import write_onnx
from worker.job.bias import check_bias_place
from worker.job.error_mapping import as_spec_error
from worker.job.networks import Networks
from worker.methods import looks_inside
from worker.models.output_layer import NoOutputLayer, find_output_layer
from worker.training.causal_lm import check_generation_fits

_OTHER_NETWORK = "Or give it another architecture, of images small-cnn, of texts bert, of sound wav2vec2."


def check_early(networks: Networks) -> None:
    """Builds and checks everything that can fail without a trained teacher. Raises JobFault or UnusableData."""
    choose_precision(networks.spec.training.precision, networks.device)
    for role in networks.teachers:
        if not networks.is_trained(role):
            networks.load_pretrained(role)
    student = networks.build("student")
    if networks.spec.student.source == "teacher-layers":
        _check_teacher_layers(networks, student)
    if isinstance(reads := networks.preprocessing("student"), LanguagePreprocessing):
        check_generation_fits(networks.spec.method, reads.max_length)
        return
    _check_places_for_units(networks)
    if networks.spec.evaluation.correct_bias:
        check_bias_place(networks)
    _check_exports(networks)
    _check_augmentation(networks)
    if looks_inside(networks.spec.method):
        role = next(iter(networks.teachers))
        teacher = networks.build_or_load(role)
        method = networks.map_layers(student, teacher, networks.preprocessing_of(role))
        with as_spec_error("/method"):
            method.objective(targets=networks.data.targets, labels=networks.data.splits["train"].labels)


def _check_teacher_layers(networks: Networks, student: nn.Module) -> None:
    """Raises JobFault if the student's layers differ from its teacher's, or its tokenizer does."""
    role = next(iter(networks.teachers))
    teacher = networks.build_or_load(role)
    if not same_tokens(networks.preprocessing("student"), networks.preprocessing_of(role)):
        raise JobFault(
            "invalid_spec",
            "A student with its teacher's layers uses its teacher's tokenizer: leave student.tokenizer out.",
            details={"pointer": "/student/tokenizer"},
        )
    networks.copy_teacher_layers(student, teacher)


def _check_places_for_units(networks: Networks) -> None:
    """Raises JobFault if the job trains a network that cannot predict the job's numbers in the data's units."""
    targets = networks.data.targets
    if targets.units is None:
        return
    far = [target for target in targets if target.mean]
    few = first(networks.data.splits["train"].inputs, 2)
    for role in (*filter(networks.is_trained, networks.teachers), *networks.chain, "student"):
        reads, network = networks.preprocessing(role), networks.build_plain(role, num_outputs=targets.width)
        try:
            is_shiftable = find_output_layer(network, reads(reads.prepare(few))).is_shiftable
        except NoOutputLayer as error:
            raise JobFault("invalid_spec", f"The {role} cannot predict numbers: {error}.", hint=_OTHER_NETWORK) from error
        if far and not is_shiftable:
            numbers = ", ".join(f"{each.name!r} (mean {each.mean:.6g}, deviation {each.scale:.6g})" for each in far)
            raise JobFault(
                "invalid_spec",
                f"The {role} cannot predict numbers this far from 0: {numbers}. Its output layer has no bias.",
                hint=f"Subtract the mean from the column, or one near it. {_OTHER_NETWORK}",
                details={"pointer": f"/{networks.spec_path(role)}/architecture"},
            )


def _check_exports(networks: Networks) -> None:
    """Exports the untrained student. Raises JobFault if it cannot be written as ONNX."""
    if networks.spec.exports:
        plain = networks.build_plain("student", num_outputs=networks.data.targets.width)
        with TemporaryDirectory(dir=networks.scratch) as folder, as_spec_error("/exports"):
            write_onnx(plain, Path(folder) / "student.onnx", samples=networks.samples("student", "test"), data=networks.data)


def _check_augmentation(networks: Networks) -> None:
    """Raises JobFault if an augmentation does not fit a network's inputs, or gives the teachers another view than the student."""
    for role in filter(networks.is_trained, networks.teachers):
        networks.views(role)
    if not networks.spec.training.augment:
        return
    teachers = [networks.preprocessing_of(role) for role in networks.teachers]
    for role in (*networks.chain, "student"):
        views, reads = networks.views(role), networks.preprocessing(role)
        for teacher in teachers:
            if views is not None:
                with as_spec_error("/training/augment"):
                    check_same_views(views, networks.data.splits["train"].inputs, student=reads, teacher=teacher)
        teachers = [reads]
