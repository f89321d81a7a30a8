"""The last phases of a job: evaluation of all its networks on the test split, and export of the result folder.

Invariant: the test split has no part in any choice before.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from service.spec import JobSpec
from service.spec.cards.network import AdapterCard, Latency
from service.spec.methods import BornAgain
from service.spec.report import Report, SeedsCard
from service.spec.warning_message import WarningMessage
from worker.data import Data, Split
from worker.data.samples import Samples
from worker.evaluation.evaluate import EvaluationResult
from worker.evaluation.speed import ALWAYS, Subject, batch_sizes, measure_speed
from worker.export.adapter import check_adapter, export_adapter
from worker.export.folder import check_export, export_network, result_folder
from worker.export.forms import export_student
from worker.job.error_mapping import as_spec_error
from worker.job.findings import gain_findings, reference_findings, student_findings, teacher_findings
from worker.job.networks import Networks
from worker.job.reporting import PhaseReporter
from worker.job.roles import CONTROL, STUDENT, Role, adapter_folder, by_name, roles_by_seed
from worker.job.shown_samples import disagreements, generations
from worker.job.teacher_check import compare_with_guess
from worker.methods import privileged_term
from worker.report.build import Assessed, Gain, make_report
from worker.report.documents import write_documents
from worker.report.seeds import seeds_card
from worker.sources.revisions import pinned_spec
from worker.tasks import TASKS
from worker.teachers.ensemble import Teachers, combine_outputs
from worker.trained import TrainedNetwork
from worker.training.kept_weights import Weights, restore


def evaluate_and_export(
    job: Networks,
    networks: Mapping[str, TrainedNetwork],
    teachers: Teachers,
    *,
    replicate_scores: Mapping[str, EvaluationResult | None],
    teacher_scores: Mapping[str, EvaluationResult | None],
    trained: Weights,
    warnings: Sequence[WarningMessage],
    phases: PhaseReporter,
    job_id: str,
    folder: Path,
) -> Report:
    """Writes the result folder and returns its report. ``trained`` are the student's best weights, before any folding.

    ``warnings`` are those that were found before the evaluation.
    """
    task, targets = TASKS[job.data.task], job.data.targets
    test, validation = job.data.splits["test"], job.data.splits["validation"]
    phases.start("evaluation", f"Measuring score and latency on {len(test):,} test samples")
    outputs: dict[str, Tensor] = {}
    for done, (role, network) in enumerate(networks.items()):
        phases.report("evaluation", done, total=len(networks) + 1)
        outputs[role] = network.outputs(test)
    phases.report("evaluation", len(networks), total=len(networks) + 1)
    teacher_outputs = teachers.combine([outputs[role] for role in teachers.members])
    subjects = {role: _subject(network, test) for role, network in networks.items()}
    batches = batch_sizes(min(task.evaluation_batch(subject.inputs) for subject in subjects.values()))
    speeds = measure_speed(subjects, batches=batches, seconds=job.spec.evaluation.speed_seconds)
    phases.report("evaluation", len(networks) + 1, total=len(networks) + 1)

    phases.start("export", "Writing the student, its report and its model card, and loading the student once more")
    with result_folder(folder) as result:
        num_bytes = {
            role: network.num_bytes or export_network(network, result / role, data=job.data)
            for role, network in networks.items()
            if role != "control"
        }
        adapters = {
            str(role): _export_adapter(job, role, network, result)
            for role in job.specs.plan.reported
            if role != CONTROL and (network := networks[str(role)]).adapted is not None
        }
        expected = outputs["student"]
        check_export(result / "student", split=test, targets=targets, task=task, device=job.device, expected=expected)
        with as_spec_error("/exports"):
            exports = export_student(networks["student"], result, job.spec.exports, data=job.data)
        # The control has the student's architecture; it is evaluated and not exported.
        num_bytes["control"] = num_bytes["student"]
        assessed = {
            role: Assessed(
                test=task.measure(outputs[role], test.labels, targets, only=network.teaches),
                evidence=task.evidence(outputs[role], test.labels, targets, only=network.teaches),
                validation=teacher_scores[role]
                if role in teacher_scores and network.figures is None
                else _validation_result(network, validation, job.data),
                latency_ms=Latency(batch_1=speeds[role].of(1).p50_ms, batch_64=speeds[role].of(64).p50_ms),
                num_bytes=num_bytes[role],
                speed=speeds[role],
            )
            for role, network in networks.items()
        }
        if "teacher" not in assessed:
            assessed["teacher"] = Assessed.together(
                [assessed[role] for role in teachers.members],
                test=task.measure(teacher_outputs, test.labels, targets, only=teachers.teaches),
                evidence=task.evidence(teacher_outputs, test.labels, targets, only=teachers.teaches),
                validation=task.score_labelled(teachers.outputs(validation), validation.labels, targets, only=teachers.teaches),
            )
        seeds = _seeds_card(job.spec, dict(replicate_scores) | {role: each.test.result for role, each in assessed.items()})
        gain = _gain(assessed, seeds, outputs, job.data)
        agreement = task.agreement(teacher_outputs, outputs["student"], targets, only=teachers.teaches)
        over_teacher = None
        if agreement.value is not None and teachers.teaches is None:
            over_teacher = _over_teacher(assessed, seeds, outputs["student"], teacher_outputs, job.data)
        is_teacher_told = any(warning.code == "teacher_at_chance" for warning in warnings)
        report = make_report(
            spec=job.spec,
            job_id=job_id,
            data=job.data,
            networks=networks,
            teachers=by_name(job.specs.teachers),
            assessed=assessed,
            score_with_teacher=_score_with_teacher(job, teachers, test, trained),
            ensemble_score=_ensemble_score(job, outputs, test),
            agreement=agreement,
            validation_agreement=_validation_agreement(networks["student"], teachers, job.data),
            exports=exports,
            adapters=adapters,
            warnings=[
                *warnings,
                *_findings(job.data, networks, teachers, assessed, outputs, gain, is_teacher_told=is_teacher_told),
            ],
            disagreements=list(disagreements(job.data, teachers, teacher=teacher_outputs, student=outputs["student"])),
            generations=list(generations(job.data, networks, count=job.spec.evaluation.generations)),
            gain=gain,
            over_teacher=over_teacher,
            seeds=seeds,
        )
        write_documents(result, report=report, spec=pinned_spec(job.submitted, job.revisions))
    return report


def _subject(network: TrainedNetwork, split: Split) -> Subject:
    """A network as its speed is measured: on some of the split's samples."""
    inputs = network.samples(split).inputs_from(0, max(ALWAYS))
    is_integer = network.dtype is not None and network.dtype.format in ("int8", "int4")
    return Subject(network.network, inputs, has_integer_weights=is_integer)


def _export_adapter(job: Networks, role: Role, network: TrainedNetwork, result: Path) -> AdapterCard:
    """Writes a network's adapter beside the network that it is merged into, and compares the two."""
    folder = result / adapter_folder(role)
    export_adapter(network, folder, data=job.data)
    return check_adapter(
        folder, network, merged=result / str(role), base=partial(job.base, role), split=job.data.splits["test"], data=job.data
    )


def _gain(assessed: Mapping[str, Assessed], seeds: SeedsCard | None, outputs: Mapping[str, Tensor], data: Data) -> Gain | None:
    """The student's gain over its control: the mean over the seeds if there are several, else that of the one run."""
    student = assessed["student"].test.result
    control = assessed["control"].test.result if "control" in assessed else None
    if student is None or control is None:
        return None
    if seeds is not None and seeds.gain is not None and (half := seeds.gain.half_width) is not None:
        mean = seeds.gain.mean
        return Gain(mean, (mean - half, mean + half), len(seeds.seeds))
    test = data.splits["test"]
    interval = TASKS[data.task].paired_interval(outputs["student"], outputs["control"], test.labels, data.targets)
    return Gain(student.score - control.score, interval, 1)


def _over_teacher(
    assessed: Mapping[str, Assessed], seeds: SeedsCard | None, student: Tensor, teacher: Tensor, data: Data
) -> Gain | None:
    """What the student scores over its teacher, over several seeds their mean; None where no labels compare the two."""
    ours, theirs = assessed["student"].test.result, assessed["teacher"].test.result
    task = TASKS[data.task]
    if ours is None or theirs is None or task.labelled_by_teacher:
        return None
    if seeds is not None and (half := seeds.student.half_width) is not None:
        mean = seeds.student.mean - theirs.score
        return Gain(mean, (mean - half, mean + half), len(seeds.seeds))
    interval = task.paired_interval(student, teacher, data.splits["test"].labels, data.targets)
    return Gain(ours.score - theirs.score, interval, 1)


def _findings(
    data: Data,
    networks: Mapping[str, TrainedNetwork],
    teachers: Teachers,
    assessed: Mapping[str, Assessed],
    outputs: Mapping[str, Tensor],
    gain: Gain | None,
    *,
    is_teacher_told: bool,
) -> Iterator[WarningMessage]:
    """What the figures of the test split show against the student, its teacher or its gain."""
    task, test = TASKS[data.task], data.splits["test"]
    yield from student_findings(compare_with_guess(networks["student"], outputs["student"], test, data))
    if not is_teacher_told:
        for role, teacher in teachers.members.items():
            yield from reference_findings("teacher", compare_with_guess(teacher, outputs[role], test, data))
    if gain is None:
        return
    yield from reference_findings("control", compare_with_guess(networks["control"], outputs["control"], test, data))
    in_points, rows = task.score_is_share(data.targets), assessed["student"].test.rows
    yield from gain_findings(
        gain.value,
        gain.interval,
        num_seeds=gain.num_seeds,
        rows=rows,
        in_points=in_points,
        counted=task.info.counted,
    )
    taught, control = assessed["teacher"].test.result, assessed["control"].test.result
    if teachers.teaches is None and taught is not None and control is not None:
        together = teachers.combine([outputs[role] for role in teachers.members])
        difference = task.paired_interval(together, outputs["control"], test.labels, data.targets)
        untuned = [each.source for each in teachers.members.values() if each.start is not None and not each.start.tuned]
        yield from teacher_findings(difference, teacher=taught.score, control=control.score, untuned=untuned)


def _validation_result(network: TrainedNetwork, split: Split, data: Data) -> EvaluationResult | None:
    """The network's scores on the validation split; those of its training if nothing was changed since. None without labels."""
    figures = network.figures
    if figures is not None and figures.chosen_by == "score" and network.teaches is None and network.bias is None:
        return figures.best_validation
    task = TASKS[data.task]
    if not task.can_score(split.labels, data.targets, only=network.teaches):
        return None
    return task.score(network.outputs(split), split.labels, data.targets, only=network.teaches)


def _validation_agreement(student: TrainedNetwork, teachers: Teachers, data: Data) -> float | None:
    """The agreement with the teachers that chose the student's weights; None if the labels chose them."""
    if student.figures is None or student.figures.chosen_by == "score":
        return None
    task, split = TASKS[data.task], data.splits["validation"]
    ours, theirs = student.outputs(split), teachers.outputs(split)
    return task.score_by_teacher(ours, theirs, data.targets, only=teachers.teaches).score


def _seeds_card(spec: JobSpec, tests: Mapping[str, EvaluationResult | None]) -> SeedsCard | None:
    """Summarises the test scores over the seeds; None if the spec names no seeds, or the test split has no labels."""
    if not spec.evaluation.seeds:
        return None
    student = _scores(tests, roles_by_seed(spec, "student"))
    if student is None:
        return None
    control = _scores(tests, roles_by_seed(spec, "control")) if spec.evaluation.control else None
    return seeds_card(spec.evaluation.seeds, student=student, control=control)


def _scores(tests: Mapping[str, EvaluationResult | None], roles: Sequence[Role]) -> list[float] | None:
    found = [result.score for role in roles if (result := tests[str(role)]) is not None]
    return found if len(found) == len(roles) else None


def _score_with_teacher(job: Networks, teachers: Teachers, split: Split, trained: Weights) -> float | None:
    """The score of the student's best weights with the teacher's outputs as input; None if the student has no such input."""
    term, task = privileged_term(job.spec.method), TASKS[job.data.task]
    if term is None or not term.extra_input:
        return None
    network = job.build(STUDENT)
    restore(network, trained)
    samples = Samples.of(split, job.preprocessing(STUDENT), device=job.device)
    outputs = task.predict(network.to(job.device), samples, teacher_outputs=teachers.outputs(split))
    result = task.score_labelled(outputs, samples.labels, job.data.targets)
    return None if result is None else result.score


def _ensemble_score(job: Networks, outputs: Mapping[str, Tensor], split: Split) -> float | None:
    """The score of the ensemble of the student and the generations before it; None if the spec does not ask for it."""
    if not (isinstance(job.spec.method, BornAgain) and job.spec.method.ensemble):
        return None
    ensemble = combine_outputs([outputs[role] for role in map(str, (*job.specs.chain, STUDENT))], job.data.targets)
    result = TASKS[job.data.task].score_labelled(ensemble, split.labels, job.data.targets)
    return None if result is None else result.score
