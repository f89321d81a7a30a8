"""The check of one job, up to its last event."""

import time

from service.spec import JobSpec, parse_spec
from service.spec.estimate import Estimate
from service.spec.job import TeacherSpec
from service.spec.source import split_network
from worker.errors import StopAsked
from worker.job.roles import STUDENT, Role, by_name, teachers_by_role
from worker.preflight.estimate import GIB, memory_bytes, num_ranks, steps_by_phase
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
        estimate = _estimate(assignment, reporter)
        seconds = time.monotonic() - started
        last = Checked(estimate.model_copy(update={"seconds": seconds}).model_dump(mode="json"))
    except StopAsked as stop:
        last = Stopped(reason=stop.request.reason)
    except Exception as error:  # noqa: BLE001 - the task's boundary: every error is recorded
        last = outcome_of(error)
    reporter.emit(last)


def _estimate(assignment: Assignment, reporter: Reporter) -> Estimate:
    spec, untrained = _with_planned(parse_spec(assignment.spec), assignment)
    findings = PreflightRun(spec, assignment, reporter, untrained=untrained).run()
    plan, ranks, on_gpu = findings.plan, num_ranks(spec), spec.resources.gpus > 0
    memory = {role: memory_bytes(profile, num_ranks=ranks, on_gpu=on_gpu) / GIB for role, profile in findings.profiles.items()}
    is_known = STUDENT in memory and (findings.is_complete or set(plan.teachers) <= findings.parameters.keys())
    counts = {role: count for role in plan.trained if (count := findings.num_samples(role)) is not None}
    transfer = {role: findings.transfer(role) for role in counts}
    return Estimate(
        parameters=by_name(findings.parameters),
        flops={str(role): profile.step.flops // profile.step.num_samples for role, profile in findings.profiles.items()},
        memory_gib=max(memory.values()) if is_known else None,
        memory_by_training_gib=by_name(memory),
        steps=steps_by_phase(plan, counts, transfer) if len(counts) == len(plan.trained) else {},
        num_samples=counts.get(STUDENT),
        notes=findings.notes,
        warnings=findings.warnings,
        seconds=0.0,
    )


def _with_planned(spec: JobSpec, assignment: Assignment) -> tuple[JobSpec, frozenset[Role]]:
    """The spec with teachers that another job is still to train as untrained networks of their architecture, and their roles."""
    each = []
    untrained = set()
    for role, teacher in teachers_by_role(spec).items():
        planned = assignment.planned.get(teacher.source)
        if planned is None or teacher.source in assignment.inputs:
            each.append(teacher)
            continue
        untrained.add(role)
        each.append(_built_as(parse_spec(planned), teacher))
    if not untrained:
        return spec, frozenset()
    return spec.model_copy(update={"teacher": each if isinstance(spec.teacher, list) else each[0]}), frozenset(untrained)


def _built_as(planned: JobSpec, teacher: TeacherSpec) -> TeacherSpec:
    if split_network(teacher.source).part == "teacher":
        (trained,) = planned.trained_teachers
        return trained.model_copy(update={"weight": teacher.weight, "targets": teacher.targets})
    student = planned.student
    return TeacherSpec(
        architecture=student.architecture,
        tokenizer=student.tokenizer or planned.first_teacher.tokenizer,
        features=student.features,
        weight=teacher.weight,
        targets=teacher.targets,
    )
