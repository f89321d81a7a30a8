"""The check of one job, up to its last event."""

import time
from dataclasses import replace
from typing import Any

from service.spec import JobSpec, parse_spec
from service.spec.estimate import Estimate
from service.spec.job import StudentSpec, TeacherSpec
from service.spec.preview import Preview
from service.spec.source import split_network
from service.spec.tasks import TASKS
from service.spec.training import TrainingSpec
from worker.errors import StopAsked
from worker.job.roles import STUDENT, Role, by_name, teachers_by_role
from worker.preflight.estimate import GIB, memory_parts, num_ranks, steps_by_phase
from worker.preflight.outcome import outcome_of
from worker.preflight.run import PreflightRun
from worker.protocol import Assignment, Checked, Event, Reporter, Stopped


def check(assignment: Assignment, reporter: Reporter) -> None:
    """Checks a job on the CPU. The last event is ``Checked``, ``Failed`` or ``Stopped``; only what the reporter raises gets out.

    ``Failed`` is ``preflight_failed`` where the job cannot be trained as it is, with ``details`` that hold the place as
    ``pointer`` and the code that the job itself would have ended with as ``cause``; ``input_unavailable`` where an input is gone;
    and any other code, always retryable, where the check itself failed.
    """
    started = time.monotonic()
    last: Event
    try:
        estimate, preview = _found(assignment, reporter)
        seconds = time.monotonic() - started
        made = None if preview is None else preview.model_dump(mode="json")
        last = Checked(estimate.model_copy(update={"seconds": seconds}).model_dump(mode="json"), made)
    except StopAsked as stop:
        last = Stopped(reason=stop.request.reason)
    except Exception as error:  # noqa: BLE001 - the task's boundary: every error is recorded
        last = outcome_of(error)
    reporter.emit(last)


def _found(assignment: Assignment, reporter: Reporter) -> tuple[Estimate, Preview | None]:
    spec, untrained, away = _with_planned(parse_spec(assignment.spec), assignment)
    assignment = replace(assignment, away={**assignment.away, **away})
    findings = PreflightRun(spec, assignment, reporter, untrained=untrained).run()
    plan, ranks, on_gpu = findings.plan, num_ranks(spec), spec.resources.gpus > 0
    parts = {
        role: {part: size / GIB for part, size in memory_parts(profile, num_ranks=ranks, on_gpu=on_gpu).items()}
        for role, profile in findings.profiles.items()
    }
    memory = {role: sum(each.values()) for role, each in parts.items()}
    is_known = STUDENT in memory and (findings.is_complete or set(plan.teachers) <= findings.parameters.keys())
    counts = {role: count for role in plan.trained if (count := findings.num_samples(role)) is not None}
    transfer = {role: findings.transfer(role) for role in counts}
    estimate = Estimate(
        parameters=by_name(findings.parameters),
        flops={str(role): profile.step.flops // profile.step.num_samples for role, profile in findings.profiles.items()},
        memory_gib=max(memory.values()) if is_known else None,
        memory_by_training_gib=by_name(memory),
        memory_parts_gib=by_name(parts),
        steps=steps_by_phase(plan, counts, transfer) if len(counts) == len(plan.trained) else {},
        num_samples=counts.get(STUDENT),
        notes=findings.notes,
        warnings=findings.warnings,
        seconds=0.0,
    )
    return estimate, findings.preview


def _with_planned(spec: JobSpec, assignment: Assignment) -> tuple[JobSpec, frozenset[Role], dict[str, str]]:
    """The spec with the networks that another job is still to train as ones of their architecture, which this job builds.

    Returns the roles of those that this job does not train as well, and by source why some cannot be tried: they begin with a
    network that exists in turn.
    """
    each: list[TeacherSpec] = []
    untrained: set[Role] = set()
    away: dict[str, str] = {}
    student = spec.student
    for source in {teacher.source for teacher in spec.teachers.values()} | {student.source}:
        if source in assignment.planned and source not in assignment.inputs and _built_as(assignment, source) is None:
            away[source] = f"{source} is still to be trained, and not from nothing."
    for role, teacher in teachers_by_role(spec).items():
        built = None if teacher.source in assignment.inputs else _built_as(assignment, teacher.source)
        if built is not None and teacher.training is None:
            untrained.add(role)
        training = teacher.training or TrainingSpec()
        each.append(teacher if built is None else teacher.model_copy(update={"source": "train", "training": training, **built}))
    if student.source not in assignment.inputs and (built := _built_as(assignment, student.source)) is not None:
        student = student.model_copy(update={"source": "random", **built})
    teachers = each if isinstance(spec.teacher, list) else each[0]
    return spec.model_copy(update={"teacher": teachers, "student": student}), frozenset(untrained), away


def _built_as(assignment: Assignment, source: str) -> dict[str, Any] | None:
    """The fields by which a network is built that another job is to train; None if none is, or if it begins with another one."""
    if source not in assignment.planned:
        return None
    planned = parse_spec(assignment.planned[source])
    network: StudentSpec | TeacherSpec = planned.student
    if split_network(source).part == "teacher":
        (network,) = planned.trained_teachers
    tokenizer = network.tokenizer or planned.first_teacher.tokenizer
    if network.architecture is None or (tokenizer is None and TASKS[planned.task].input_kind == "text"):
        return None
    return {"architecture": network.architecture, "tokenizer": tokenizer, "features": network.features}
