"""The networks that exist: whether they are there and fit into memory; of teachers that the job does not train, whether they know
the task."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service.spec.source import is_given
from worker.data import Data
from worker.job.given_formats import frozen_loading
from worker.job.roles import Role
from worker.job.teacher_check import TeacherCheck, compare_some
from worker.models.loading import FLOAT32, StoredWeights
from worker.preflight.estimate import InferenceProfile
from worker.preflight.findings import Findings
from worker.preflight.outcome import located_at
from worker.trained import TrainedNetwork

_SCORING_SECONDS = 5.0
"""For all given teachers together; the attempt scores each on the whole validation split."""


def load_given(
    findings: Findings, whole: Data, *, inputs: Mapping[str, Path], away: Mapping[str, str], most_bytes: float
) -> bool:
    """Loads the networks that exist: those that teach as they are, and those that this job trains.

    Returns whether each is available, rather than ``away`` for a reason, and fits into ``most_bytes``.
    """
    networks = findings.networks
    is_whole = _load_teachers(findings, whole, inputs=inputs, away=away, most_bytes=most_bytes)
    for role in networks.specs.plan.trained:
        source = networks.specs.source(role)
        if not is_given(source):
            continue
        if source in away:
            findings.note(f"The {role} was not tried, nor the method. {away[source]}")
            is_whole = False
            continue
        with located_at(f"/{networks.specs.path(role)}/source"):
            if findings.task.info.input_kind != "text":
                networks.preprocessing(role, fitted_to=whole)
            folder = inputs.get(source)
            if folder is None or StoredWeights.of(folder).bytes(FLOAT32) <= most_bytes:
                findings.warnings += networks.start_warnings(role)
    return is_whole


def _load_teachers(
    findings: Findings, whole: Data, *, inputs: Mapping[str, Path], away: Mapping[str, str], most_bytes: float
) -> bool:
    """Loads the given teachers, and scores them on as many validation rows of the ``whole`` data as there is time for."""
    networks = findings.networks
    give_up_at = time.monotonic() + _SCORING_SECONDS
    for role, spec in networks.specs.teachers.items():
        if networks.specs.is_trained(role):
            continue
        with located_at(f"/{networks.specs.path(role)}/source"):
            folder = inputs.get(spec.source)
            if folder is not None and _is_too_large(findings, role, folder, most_bytes=most_bytes):
                return False
            if spec.source in away:
                findings.note(f"The {role} was not tried, nor the method. {away[spec.source]}")
                return False
            _score(findings, role, whole, is_over=lambda: time.monotonic() > give_up_at)
    return True


def _is_too_large(findings: Findings, role: Role, folder: Path, *, most_bytes: float) -> bool:
    """Whether a teacher takes more than ``most_bytes`` as the job loads it, which is found then with its size."""
    job = findings.networks
    loading, stored = frozen_loading(
        folder, job.specs.teachers[role], job.data, device=job.device, on_gpu=job.spec.resources.gpus > 0
    )
    size = stored.bytes(loading)
    if size <= most_bytes:
        return False
    findings.formats[role], findings.parameters[role] = loading.format, stored.parameters
    findings.resident[role] = InferenceProfile(size, 0.0, 0)
    findings.note(f"The {role} of {stored.parameters:,} parameters is too large to be tried on a CPU, and so is the method.")
    return True


def _score(findings: Findings, role: Role, whole: Data, *, is_over: Callable[[], bool]) -> None:
    """Raises JobFault if the spec does not accept the teacher's score."""
    networks = findings.networks
    teacher = _load_fitted(findings, role, whole)
    findings.warnings += teacher.warnings
    if findings.task.labelled_by_teacher:
        return
    compared = compare_some(teacher, whole, is_over=is_over)
    if compared is None:
        return  # the attempt scores it on the whole split
    check = TeacherCheck(
        networks.specs.teachers[role], teacher, networks.spec.task, pointer=networks.specs.path(role), is_given=True
    )
    findings.warnings += check.judge(compared)


def _load_fitted(findings: Findings, role: Role, whole: Data) -> TrainedNetwork:
    """Loads a given teacher, fitted to the whole data: two samples show neither their range nor all lengths of clips.

    Of texts, whose longest are among the samples of a step, it is fitted to those.
    """
    is_text = findings.task.info.input_kind == "text"
    return findings.networks.load_pretrained(role, fitted_to=None if is_text else whole)
