"""The trainer's main: data → teacher → student → control → evaluation → export.

It knows a spec, a folder and devices, and no database, no Redis, no HTTP; its only connection is to the Hub, for a teacher
from there. Invariant: between any two optimizer steps the whole job is in one :class:`Attempt`'s ``state`` and the running
:class:`Training`, and a checkpoint holds both, so that on a CPU a job that is killed anywhere and started again ends with the
same student, bit for bit, as one that never was. Several ranks run it side by side up to the last training; rank 0 writes every
file, and evaluates and exports alone.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.spec import JobSpec, parse_spec
from service.spec.label_fit import learned_without_labels
from service.spec.methods import DeepMutual
from service.spec.source import split_source
from service.spec.training import TrainingSpec
from service.spec.warning_message import WarningMessage
from worker.data import Data, load_data
from worker.data.data_warnings import with_warnings
from worker.data.samples import Samples
from worker.distributed.group import is_peer_failure, join
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.distributed.rng import deterministic_kernels
from worker.errors import StopAsked
from worker.export.folder import export_network, result_folder
from worker.job.assessment import evaluate_and_export
from worker.job.bias import correct_bias
from worker.job.early_checks import check_disk, check_early
from worker.job.error_mapping import as_failure
from worker.job.labels import label_warnings, without_control
from worker.job.networks import Networks, local_input
from worker.job.number_units import standardise_by_teacher
from worker.job.plan import plan_of
from worker.job.reading import BackgroundReading, ReadingReporter, read_all
from worker.job.reporting import PhaseReporter, RankZeroReporter
from worker.job.resume import JobState, Unfinished, job_digest, read_resumable
from worker.job.roles import CONTROL, STUDENT, Role, by_name
from worker.job.teacher_check import check_on_validation
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.methods.layer_mapping import LayerMapping
from worker.models import num_parameters
from worker.protocol import (
    CHECKPOINT_FILE,
    RESULT_FOLDER,
    Assignment,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    Phase,
    Reporter,
    Stopped,
    StopRequest,
    Warned,
)
from worker.spec_file import write_spec
from worker.tasks import TASKS, Distillation
from worker.teachers.ensemble import Teachers
from worker.teachers.hub import pinned_spec
from worker.trained import TrainedNetwork
from worker.training.callbacks import TrainingReporter
from worker.training.criterion import BuildCriterion, Criterion
from worker.training.loop import Training, train
from worker.training.mutual import MutualTraining
from worker.training.result import TrainingResult, Weights
from worker.training.validation import ValidationTeacher

logger = logging.getLogger(__name__)


class RankLost(Exception):
    """Another rank has died, so this one cannot continue; the rank that died reports the error."""


def run(assignment: Assignment, reporter: Reporter, *, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Runs one attempt and emits its last event: ``Finished``, ``Stopped`` or ``Failed``. Exceptions of the reporter propagate.

    Every rank of ``group`` calls this; ranks other than 0 emit nothing but ``Failed``.

    Raises:
        RankLost: another rank has died.
    """
    try:
        spec = parse_spec(assignment.spec)
        with deterministic_kernels(torch.device(assignment.devices[group.rank])):
            last = Attempt(spec, assignment, reporter, group=group).run()
    except Exception as error:
        if group.is_peer_failure(error):
            raise RankLost from error
        last = as_failure(error)
    if last is not None and (group.is_rank0 or isinstance(last, Failed)):
        reporter.emit(last)


def run_rank(assignment: Assignment, reporter: Reporter, *, index: int, rendezvous: Path | None) -> None:
    """Runs one rank of an attempt. The ranks meet in the fresh file ``rendezvous``; without it there is one rank.

    Raises:
        RankLost: another rank has died.
    """
    if rendezvous is None:
        run(assignment, reporter)
        return
    device = torch.device(assignment.devices[index])
    try:
        group = join(rendezvous, rank=index, world_size=len(assignment.devices), device=device)
    except Exception as error:
        if is_peer_failure(error):
            raise RankLost from error
        reporter.emit(as_failure(error))
        return
    run(assignment, reporter, group=group)


class Attempt:
    """One attempt at one job, which resumes wherever the attempts before it came to."""

    def __init__(
        self, spec: JobSpec, assignment: Assignment, reporter: Reporter, *, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.spec, self.assignment, self.group = spec, assignment, group
        self.task = TASKS[spec.task]
        self.device = torch.device(assignment.devices[group.rank])
        self.reading = BackgroundReading()
        self._own_reporter = ReadingReporter(reporter, self.reading)
        self.reporter: Reporter = RankZeroReporter(self._own_reporter, group)
        self.phases = PhaseReporter(self.reporter, group=group)
        self.state = JobState()
        self.training: Training | None = None
        """The training that runs."""

    def run(self) -> Event | None:
        """Trains, evaluates and exports every network. Returns the last event; None on a rank that ends before the evaluation."""
        self._set_up()
        try:
            teachers = predecessor = self._teachers()
            self._label_with_teacher(teachers)
            networks = {Role.parse(role): network for role, network in teachers.members.items()}
            for role in self.networks.chain:
                self._distil(predecessor, role)
                networks[role] = self._rebuild(role)
                predecessor = Teachers({str(role): networks[role]}, (1.0,), self.data.targets)
            self._distil(predecessor, STUDENT)
            networks[STUDENT] = self._finished_student(STUDENT, predecessor)
            self._train_control()
            self._train_replicates(predecessor)
            return self._finish(teachers, networks) if self.group.is_rank0 else None
        except StopAsked as stop:
            if stop.request.reason in {"cancel", "time_limit"}:
                self._export_partial_student(stop.request)
            if stop.request.reason != "cancel":
                self._write_checkpoint()
            return Stopped(reason=stop.request.reason)

    def _set_up(self) -> None:
        """Loads the data and the checkpoint, and checks what can be checked before the first training."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # code that uses "the" current device, as the check for bf16 does, gets this one
        if self.assignment.num_threads is not None or self.group.world_size > 1:
            num_threads = self.assignment.num_threads or torch.get_num_threads()
            torch.set_num_threads(max(1, num_threads // self.group.world_size))
        self.data = self._load_data()
        self.networks = Networks(
            self.spec, self.data, device=self.device, inputs=self.assignment.inputs, scratch=self.assignment.folder
        )
        # Of the data as they are read: which classes they adopt depends on the commits that the checkpoint holds.
        self.digest = job_digest(self.spec, self.data)
        resumed = read_resumable(self.assignment.folder / CHECKPOINT_FILE, digest=self.digest, device=self.device)
        if resumed is not None:
            self.state, self.networks.commits = resumed
        self.data = self.networks.adopt_classes()
        self.spec = self.networks.spec = without_control(self.spec, self.data)
        self.teacher_outputs = TeacherOutputProvider(self.networks, self.phases, cache=self.assignment.cache, group=self.group)
        standardise_by_teacher(self.networks)
        self.data = self.networks.data
        if self.group.is_rank0:
            told = read_all(self.networks, self.data.splits.values(), background=self.reading)
            self.data = self.networks.data = replace(self.data, warnings=(*self.data.warnings, *told))
        if not self.state.finished and self.state.interrupted is None and self.group.is_rank0:
            check_disk(self.networks)
            check_early(self.networks)
        for warning in (*self.data.warnings, *label_warnings(self.networks.submitted, self.data)):
            self._warn(warning)
        self.group.all_true(True)  # no rank replaces the checkpoint before every rank has read it

    def _finish(self, teachers: Teachers, networks: dict[Role, TrainedNetwork]) -> Finished:
        """Evaluates and exports, on rank 0 alone."""
        self.reading.finish()
        for warning in self.reading.warnings:
            self._warn(warning)
        self.reporter, self.phases = self._own_reporter, PhaseReporter(self._own_reporter)
        if CONTROL in self.state.finished:
            networks[CONTROL] = self._rebuild(CONTROL)
        report = evaluate_and_export(
            self.networks,
            by_name(networks),
            teachers,
            replicate_scores=by_name(self.state.replicate_scores),
            trained=self.state.finished[STUDENT].best,
            teacher_scores=by_name(self.state.teacher_scores),
            warnings=self.state.warnings,
            phases=self.phases,
            job_id=self.assignment.job_id,
            folder=self.assignment.folder / RESULT_FOLDER,
        )
        for warning in report.warnings:
            self._warn(warning)
        return Finished(result=report.headline())

    # The trainings.

    def _load_data(self) -> Data:
        dataset = self.spec.dataset
        data = load_data(
            dataset,
            self._data_file(dataset.source),
            task=TASKS[self.spec.task],
            transfer=self._data_file(dataset.transfer),
            without_labels=learned_without_labels(self.spec),
        )
        return with_warnings(data, self.spec, task=TASKS[self.spec.task]) if self.group.is_rank0 else data

    def _data_file(self, source: str | None) -> Path | None:
        """The local file of a source of data; None for none and for a builtin one."""
        if source is None or split_source(source).kind == "builtin":
            return None
        return local_input(self.assignment.inputs, source)

    def _label_with_teacher(self, teachers: Teachers) -> None:
        """Labels validation and test split by the teachers' outputs, for a task without other labels."""
        self.data = self.networks.data = self.task.label_by_teacher(self.data, teachers.outputs)

    def _teachers(self) -> Teachers:
        """Loads the given teachers and checks them, then trains the others."""
        for role in self.networks.teachers:
            if not self.networks.is_trained(role):
                self._check_teacher(role, self.networks.load_pretrained(role))
        weights = tuple(spec.weight for spec in self.networks.teachers.values())
        return Teachers({str(role): self._teacher(role) for role in self.networks.teachers}, weights, self.data.targets)

    def _teacher(self, role: Role) -> TrainedNetwork:
        if not self.networks.is_trained(role):
            return self.networks.load_pretrained(role)
        if isinstance(self.spec.method, DeepMutual):
            self._train_peers()
        else:
            self._train(role, spec=self.networks.training_spec(role))
        teacher = self._rebuild(role)
        self._check_teacher(role, teacher)
        return teacher

    def _check_teacher(self, role: Role, teacher: TrainedNetwork) -> None:
        """Scores a teacher on validation, once. Raises JobFault if the spec does not accept its score."""
        for warning in check_on_validation(
            role, teacher, networks=self.networks, state=self.state, phases=self.phases, group=self.group
        ):
            self._warn(warning)

    def _warn(self, warning: WarningMessage) -> None:
        """Logs and reports a warning, which the report will tell, unless an earlier attempt did."""
        if warning not in self.state.warnings:
            self.state.warnings.append(warning)
            logger.warning(warning.message)
            self.reporter.emit(Warned(warning.code, warning.message))

    def _train_peers(self) -> None:
        """Trains student and teacher at the same time, each on the other's outputs."""
        (peer,) = self.networks.teachers

        @cache
        def mapping() -> LayerMapping:
            return self.networks.map_layers(
                self.networks.build(STUDENT), self.networks.build(peer), self.networks.preprocessing(peer)
            )

        def build_criterion(network: nn.Module, samples: Samples) -> Criterion:
            return self.task.peer_criterion(network, samples, self.data.targets, mapping())

        self._train(STUDENT, spec=self.spec.training, build_criterion=build_criterion, peer=peer)

    def _distil(self, teachers: Teachers, role: Role) -> None:
        """Trains the student, or a network of the chain before it, on the outputs of ``teachers``."""
        if role in self.state.finished:
            return
        self.reading.finish()
        teacher, samples, spec = teachers.first, self.networks.samples(role, "train"), self.networks.training_spec(role)

        def map_layers() -> LayerMapping:
            return self.networks.map_layers(self.networks.build(role).to(self.device), teacher.network, teacher.preprocessing)

        def report(message: str) -> Callable[[int], None]:
            self.phases.start("cache", message)
            return partial(self.phases.report, "cache", total=len(samples))

        distillation = Distillation(
            self.spec,
            str(role),
            spec.seed,
            self.data.targets,
            samples,
            teacher.network,
            teacher.preprocessing,
            teacher_samples=lambda: teacher.samples(self.data.splits["train"]),
            map_layers=map_layers,
            teacher_outputs=lambda mapping: self.teacher_outputs.of(teachers, samples, mapping, role=role),
            report=report,
            group=self.group,
        )
        self._train(
            role,
            samples=samples,
            spec=spec,
            build_criterion=self.task.student_criterion(distillation),
            teacher=teacher.network,
            validation_teacher=self._validation_teacher(teachers),
        )

    def _validation_teacher(self, teachers: Teachers) -> ValidationTeacher | None:
        """What chooses a student's best weights where no sample of the validation split has a label; None where one has."""
        split = self.data.splits["validation"]
        if self.task.can_score(split.labels, self.data.targets):
            return None
        return ValidationTeacher(teachers.outputs(split), teachers.teaches)

    def _finished_student(self, role: Role, teachers: Teachers) -> TrainedNetwork:
        """A student with its best weights, its outputs' biases set by ``teachers`` if the spec says so."""
        student = self._rebuild(role)
        return correct_bias(student, teachers, self.data) if self.spec.evaluation.correct_bias else student

    def _train_control(self) -> None:
        if self.spec.evaluation.control:
            num_steps = self.state.finished[STUDENT].figures.steps
            self._train(CONTROL, spec=self.spec.training, num_steps=num_steps)

    def _train_replicates(self, teachers: Teachers) -> None:
        """Trains the student, and its control, again from each further seed of the spec."""
        for trainings in plan_of(self.spec).replicates:
            roles = [training.role for training in trainings]
            if roles[-1] in self.state.replicate_scores:
                continue
            self._distil(teachers, roles[0])
            for control in roles[1:]:
                self._train(
                    control, spec=self.networks.training_spec(control), num_steps=self.state.finished[roles[0]].figures.steps
                )
            test = self.data.splits["test"]
            for role in roles:
                network = self._finished_student(role, teachers) if role == roles[0] else self._rebuild(role)
                self.state.replicate_scores[role] = self.task.score_labelled(
                    network.outputs(test), test.labels, self.data.targets
                )
            for role in roles:
                del self.state.finished[role], self.state.last_test[role]
            self._write_checkpoint()

    def _train(
        self,
        role: Role,
        *,
        spec: TrainingSpec,
        samples: Samples | None = None,
        build_criterion: BuildCriterion | None = None,
        num_steps: int | None = None,
        peer: Role | None = None,
        teacher: nn.Module | None = None,
        validation_teacher: ValidationTeacher | None = None,
    ) -> None:
        """Trains one network, resuming its training if it was interrupted.

        ``peer`` names a network that is trained in the same steps by the same spec. If the spec says so, the student's first
        weights are layers of ``teacher``.
        """
        if role in self.state.finished:
            return
        # Student and control have the same seed, hence the same initial weights and the same batches.
        self.group.seed(spec.seed)
        network = self.networks.build(role)
        if teacher is not None and self.spec.student.source == "teacher-layers":
            self.networks.copy_teacher_layers(network, teacher)
        options: dict[str, Any] = {
            "spec": spec,
            "num_steps": num_steps,
            "build_criterion": build_criterion or partial(self.task.label_criterion, targets=self.data.targets),
            "validation_teacher": validation_teacher,
        }
        # Built after the network: neither the criterion's own weights nor the peer's may change the student's initial ones.
        parts = self._parts(role, network, samples=samples, **options)
        if peer is None:
            training = Training(**parts)
        else:
            peer_training = Training(**self._parts(peer, self.networks.build(peer), **options))
            training = MutualTraining(**parts, peer=peer_training)
        if self.state.interrupted is not None and self.state.interrupted[0] == role:
            training.restore(self.state.interrupted[1])
        self.state.interrupted, self.training = None, training
        verb = f"Resuming at step {training.step:,} the training of" if training.step else "Training"
        verb += f" the {peer} and" if peer else ""
        self.phases.start(
            role.phase,
            f"{verb} the {role}, {self.networks.architecture(role).name} of {num_parameters(network):,} parameters, "
            f"on {len(training.samples):,} samples in at most {training.last_step:,} steps",
        )
        self._run_training(training)

    def _run_training(self, training: Training) -> None:
        """Runs a training from wherever it stands to its end, then records its result and writes a checkpoint."""
        role = Role.parse(training.name)
        callback = TrainingReporter(
            self.reporter,
            write_checkpoint=self._write_checkpoint,
            group=self.group,
            part=role.part,
            earlier_steps=self.state.trained_steps(plan_of(self.spec).roles_in(role.part)),
        )
        trained = train(training, callback)
        if isinstance(training, MutualTraining):
            self._record_result(training.peer, training.peer.finish())
        self._record_result(training, trained)
        self.training = None
        self._write_checkpoint(after=(training.phase, trained.figures.steps))

    def _parts(
        self,
        role: Role,
        network: nn.Module,
        *,
        build_criterion: BuildCriterion,
        samples: Samples | None = None,
        validation_teacher: ValidationTeacher | None,
        **options: Any,
    ) -> dict[str, Any]:
        """The arguments of a network's :class:`Training`."""
        network = self.group.convert_sync_batchnorm(network.to(self.device))
        samples = samples or self.networks.samples(role, "train")
        validation = self.networks.samples(role, "validation")
        return {
            "network": network,
            "phase": role.phase,
            "name": str(role),
            "samples": samples,
            "validation": self.task.validation(validation, self.data.targets, teacher=validation_teacher),
            "criterion": build_criterion(network, samples),
            "group": self.group,
            **options,
        }

    def _record_result(self, training: Training, trained: TrainingResult) -> None:
        """Records the result of a training whose network still has its last weights, and scores these on the test split."""
        role = Role.parse(training.name)
        test = self.networks.samples(role, "test")
        outputs = self.task.predict(training.network, test, after_batch=lambda done: self.phases.check_stop(), group=self.group)
        teacher = self.networks.teachers.get(role)
        scored_targets = None if teacher is None else teacher.targets
        self.state.last_test[role] = self.task.score_labelled(outputs, test.labels, self.data.targets, only=scored_targets)
        self.state.finished[role] = trained if role == STUDENT else replace(trained, last=None)

    def _export_partial_student(self, request: StopRequest) -> None:
        """Exports the student as it is so far, if the request asks for it and its training has begun."""
        weights = None if request.keep == "none" else self._student_weights(best=request.keep == "best")
        if weights is None or not self.group.is_rank0:
            return
        with result_folder(self.assignment.folder / RESULT_FOLDER) as folder:
            export_network(self._rebuild(STUDENT, weights), folder / "student", data=self.data)
            write_spec(folder, pinned_spec(self.spec, self.networks.commits))

    def _student_weights(self, *, best: bool) -> Weights | None:
        trained = self.state.finished.get(STUDENT)
        if trained is not None:
            return trained.best if best else trained.last
        role, state = self._unfinished() or (None, {})
        if role != STUDENT:
            return None
        # There are no best weights before the first evaluation.
        weights: Weights = (best and state["best"]) or state["network"]
        return weights

    # The checkpoint.

    def _unfinished(self) -> Unfinished | None:
        return (Role.parse(self.training.name), self.training.state()) if self.training is not None else self.state.interrupted

    def _write_checkpoint(self, *, after: tuple[Phase, int] | None = None) -> None:
        """``after`` names the phase that has just ended and its last step."""
        unfinished = self._unfinished()  # a collective: all ranks contribute their generators' states
        if not self.group.is_rank0:
            return
        path = self.assignment.folder / CHECKPOINT_FILE
        self.state.write(path, digest=self.digest, unfinished=unfinished, commits=self.networks.commits)
        phase, step = after or ((unfinished[0].phase, unfinished[1]["step"]) if unfinished else ("evaluation", 0))
        self.reporter.emit(CheckpointWritten(phase=phase, step=step))

    def _rebuild(self, role: Role, weights: Weights | None = None) -> TrainedNetwork:
        """Builds a network of this job in ``eval()``, by default with its best weights."""
        trained = self.state.finished.get(role)
        if weights is None:
            weights = self.state.finished[role].best
        return self.networks.trained_network(role, weights, trained=trained, last_test=self.state.last_test.get(role))
