"""The trainer's main: it loads the data, carries out the trainings of the plan, evaluates their networks and exports the student.

It knows a spec, folders and devices, and no database, no Redis, no HTTP: what it needs from elsewhere was fetched before.
Invariant: between any two optimizer steps the whole job is in one :class:`Attempt`'s ``state`` and the running
:class:`Training`, and a checkpoint holds both, so that on a CPU a job that is killed anywhere and started again ends with the
same student, bit for bit, as one that never was. Several ranks run it side by side up to the last training; rank 0 writes every
file, and evaluates and exports alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from service.spec import JobSpec, parse_spec
from service.spec.source import is_given
from service.spec.warning_message import WarningMessage
from worker.data import Data
from worker.data.data_warnings import with_warnings
from worker.data.disk.read_choice import BUILTIN, ReadChoice
from worker.distributed.group import is_peer_failure, join
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.distributed.rng import deterministic_kernels, preserved_generators
from worker.errors import StopAsked
from worker.export.adapter import export_adapter
from worker.export.folder import export_network, result_folder
from worker.free_memory import return_free_memory
from worker.job.assessment import evaluate_and_export
from worker.job.bias import correct_bias
from worker.job.early_checks import check_disk, check_early
from worker.job.error_mapping import as_failure
from worker.job.job_data import load_job_data, reading_of
from worker.job.labels import label_warnings, without_control
from worker.job.networks import Networks
from worker.job.number_units import standardise_by_teacher
from worker.job.plan import PlannedTraining, plan_of
from worker.job.reading import BackgroundReading, ReadingReporter, read_all
from worker.job.reporting import PhaseReporter, RankZeroReporter
from worker.job.resume import JobState, Unfinished, job_digest, read_resumable
from worker.job.role_specs import RoleSpecs
from worker.job.roles import STUDENT, Role, adapter_folder, by_name
from worker.job.teacher_check import check_on_validation
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.job.trainings import TrainingBuilder
from worker.models.adapters import adapter_of, num_merged_parameters
from worker.protocol import (
    CHECKPOINT_FILE,
    RESULT_FOLDER,
    Assignment,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    Noted,
    Phase,
    Reporter,
    Stopped,
    StopRequest,
    Warned,
)
from worker.sources.revisions import pinned_spec
from worker.spec_file import write_spec
from worker.tasks import TASKS
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork
from worker.training.callbacks import TrainingReporter
from worker.training.kept_weights import Weights
from worker.training.loop import Training, train
from worker.training.mutual import MutualTraining
from worker.training.result import TrainingResult

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
        self._ready: dict[Role, TrainedNetwork] = {}
        self._running: tuple[PlannedTraining, Training] | None = None

    def run(self) -> Event | None:
        """Trains, evaluates and exports every network. Returns the last event; None on a rank that ends before the evaluation."""
        self._set_up()
        try:
            self._check_given_teachers()
            for training in self.plan.own:
                self._carry_out(training)
            for trainings in self.plan.replicates:
                self._replicate(trainings)
            return self._finish() if self.group.is_rank0 else None
        except StopAsked as stop:
            if stop.request.reason in {"cancel", "time_limit"}:
                with preserved_generators(self.device):  # of which the checkpoint tells
                    self._export_partial_student(stop.request)
            if stop.request.reason != "cancel":
                self._write_checkpoint()
            return Stopped(reason=stop.request.reason)

    # Before the first training.

    def _set_up(self) -> None:
        """Loads the data and the checkpoint, and checks what can be checked before the first training."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # code that uses "the" current device, as the check for bf16 does, gets this one
        if self.assignment.num_threads is not None or self.group.world_size > 1:
            num_threads = self.assignment.num_threads or torch.get_num_threads()
            torch.set_num_threads(max(1, num_threads // self.group.world_size))
        data = load_job_data(self.spec, self.assignment.inputs, reading=reading_of(self.assignment))
        self._tell_reading(data.read)
        if self.group.is_rank0:
            data = with_warnings(data, self.spec, task=self.task)
        self.networks = Networks(
            self.spec,
            data,
            device=self.device,
            inputs=self.assignment.inputs,
            revisions=self.assignment.revisions,
            scratch=self.assignment.folder,
        )
        self.networks.measures_formats = self.group.is_rank0
        self.digest = job_digest(self.spec, data)
        self.state = (
            read_resumable(
                self.assignment.folder / CHECKPOINT_FILE,
                digest=self.digest,
                revisions=self.assignment.revisions,
                device=self.device,
            )
            or self.state
        )
        self.networks.adopt_classes()
        self.networks.settle_rows()
        self.spec = without_control(self.spec, self.data)
        self.networks.specs = RoleSpecs(self.spec)
        self.plan = plan_of(self.spec)
        self.trainings = TrainingBuilder(
            self.networks,
            self.networks.build,
            self.phases,
            TeacherOutputProvider(self.networks, self.phases, cache=self.assignment.cache, group=self.group),
            self.group,
        )
        standardise_by_teacher(self.networks)
        if self.group.is_rank0:
            told = read_all(self.networks, self.data.splits.values(), background=self.reading)
            self.networks.data = replace(self.data, warnings=(*self.data.warnings, *told))
        if not self.state.finished and self.state.interrupted is None and self.group.is_rank0:
            check_disk(self.networks)
            student = self.trainings.build_ahead(self.plan.training_of(STUDENT))
            check_early(self.networks, student)
            if adapter_of(student) is None:  # or else it has weights of a teacher's, which teaches before
                student.to("cpu")  # where it waits for its training
        heads = self.networks.start_warnings() if self.group.is_rank0 else []
        for warning in (*self.data.warnings, *label_warnings(self.networks.submitted, self.data), *heads):
            self._warn(warning)
        self.group.all_true(True)  # no rank replaces the checkpoint before every rank has read it

    def _tell_reading(self, read: ReadChoice) -> None:
        message = f"The data are read {read}."
        logger.info(message)
        if read != BUILTIN:
            self.reporter.emit(Noted("data_read", message))

    @property
    def data(self) -> Data:
        """The data as the job has them by now."""
        return self.networks.data

    def _check_given_teachers(self) -> None:
        """Scores the teachers that are loaded, and has them label what only they can."""
        for role in self.plan.given:
            self._check_teacher(role)
        self.networks.data = self.task.label_by_teacher(
            self.data, lambda split: self._teachers(self.plan.teachers).outputs(split)
        )

    def _check_teacher(self, role: Role) -> None:
        """Scores a teacher on validation, once. Raises JobFault if the spec does not accept its score."""
        for warning in check_on_validation(
            role, self._network(role), networks=self.networks, state=self.state, phases=self.phases, group=self.group
        ):
            self._warn(warning)

    def _warn(self, warning: WarningMessage) -> None:
        """Logs and reports a warning, which the report will tell, unless an earlier attempt did."""
        if warning not in self.state.warnings:
            self.state.warnings.append(warning)
            logger.warning(warning.message)
            self.reporter.emit(Warned(warning.code, warning.message))

    # The trainings.

    def _carry_out(self, planned: PlannedTraining) -> None:
        """Trains what the plan says, unless an earlier attempt did, and scores a teacher before anything is learnt from it."""
        if planned.role not in self.state.finished:
            self._train(planned)
        for role in planned.roles:
            if role in self.plan.teachers:
                self._check_teacher(role)

    def _replicate(self, trainings: Sequence[PlannedTraining]) -> None:
        """Trains the student, and its control, again from another seed; their scores alone are kept."""
        roles = [training.role for training in trainings]
        if roles[-1] in self.state.replicate_scores:
            return
        for training in trainings:
            self._carry_out(training)
        test = self.data.splits["test"]
        for role in roles:
            outputs = self._load_best(role).outputs(test)
            self.state.replicate_scores[role] = self.task.score_labelled(outputs, test.labels, self.data.targets)
        for role in roles:
            del self.state.finished[role], self.state.last_test[role]
        self._write_checkpoint()

    def _train(self, planned: PlannedTraining) -> None:
        """Trains a network, and its peer if it has one, from wherever an earlier attempt came to."""
        teachers = None
        if planned.taught_by:
            self.reading.finish()
            teachers = self._teachers(planned.taught_by)
        num_steps = None if planned.steps_of is None else self.state.finished[planned.steps_of].figures.steps
        training = self.trainings.build(planned, teachers=teachers, num_steps=num_steps)
        if self.state.interrupted is not None and self.state.interrupted[0] == planned.role:
            training.restore(self.state.interrupted[1])
        self.state.interrupted, self._running = None, (planned, training)
        return_free_memory()
        is_tuning = planned.role in self.networks.specs.teachers and is_given(self.networks.specs.source(planned.role))
        verb = "fine-tuning" if is_tuning else "training"
        verb = f"Resuming at step {training.step:,} the {verb} of" if training.step else verb.capitalize()
        verb += f" the {planned.peer} and" if planned.peer else ""
        self.phases.start(
            training.phase,
            f"{verb} the {planned.role}, {self.networks.architecture(planned.role).name} of "
            f"{num_merged_parameters(training.network):,} parameters{_adapted(training.network)}, "
            f"on {len(training.samples):,} samples in at most {training.last_step:,} steps",
        )
        callback = TrainingReporter(
            self.reporter,
            write_checkpoint=self._write_checkpoint,
            group=self.group,
            warn=self._warn,
            part=planned.role.part,
            earlier_steps=self.state.trained_steps(self.plan.roles_in(planned.role.part)),
        )
        trained = train(training, callback)
        if isinstance(training, MutualTraining) and planned.peer is not None:
            self._record_result(planned.peer, training.peer.network, training.peer.finish())
        self._record_result(planned.role, training.network, trained)
        self._running = None
        self._write_checkpoint(after=(training.phase, trained.figures.steps))
        return_free_memory()

    def _record_result(self, role: Role, network: nn.Module, trained: TrainingResult) -> None:
        """Records the result of a training, and scores the last weights, which the network still has, on the test split."""
        test = self.networks.samples(role, "test")
        outputs = self.task.predict(network, test, after_batch=lambda done: self.phases.check_stop(), group=self.group)
        teacher = self.networks.specs.teachers.get(role)
        scored_targets = None if teacher is None else teacher.targets
        self.state.last_test[role] = self.task.score_labelled(outputs, test.labels, self.data.targets, only=scored_targets)
        self.state.finished[role] = trained if role == STUDENT else replace(trained, last=None)

    # The networks that are ready.

    def _teachers(self, roles: Sequence[Role]) -> Teachers:
        return self.networks.together({role: self._network(role) for role in roles})

    def _network(self, role: Role) -> TrainedNetwork:
        """A teacher that is loaded, or a network that was trained, with its best weights: the same at each call."""
        if role in self.plan.given:
            return self.networks.load_pretrained(role)
        if role not in self._ready:
            self._ready[role] = self._load_best(role)
        return self._ready[role]

    def _load_best(self, role: Role) -> TrainedNetwork:
        """A network with its best weights; a student's biases are set by its teachers if the spec says so."""
        network = self._load(role, self.state.finished[role].best)
        if role.kind != "student" or not self.spec.evaluation.correct_bias:
            return network
        return correct_bias(network, self._teachers(self.plan.training_of(role).learns_from), self.data)

    def _load(self, role: Role, weights: Weights) -> TrainedNetwork:
        return self.networks.trained_network(
            role, weights, trained=self.state.finished.get(role), last_test=self.state.last_test.get(role)
        )

    # After the last training.

    def _finish(self) -> Finished:
        """Evaluates and exports, on rank 0 alone."""
        self.reading.finish()
        for warning in self.reading.warnings:
            self._warn(warning)
        self.reporter, self.phases = self._own_reporter, PhaseReporter(self._own_reporter)
        report = evaluate_and_export(
            self.networks,
            by_name({role: self._network(role) for role in self.plan.reported}),
            self._teachers(self.plan.teachers),
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

    def _export_partial_student(self, request: StopRequest) -> None:
        """Exports the student as it is so far, if the request asks for it and its training has begun."""
        weights = None if request.keep == "none" else self._student_weights(best=request.keep == "best")
        if weights is None or not self.group.is_rank0:
            return
        with result_folder(self.assignment.folder / RESULT_FOLDER) as folder:
            student = self._load(STUDENT, weights)
            export_network(student, folder / "student", data=self.data)
            if student.adapted is not None:
                export_adapter(student, folder / adapter_folder(STUDENT), data=self.data)
            write_spec(folder, pinned_spec(self.spec, self.networks.revisions))

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
        if self._running is None:
            return self.state.interrupted
        planned, training = self._running
        return planned.role, training.state()

    def _write_checkpoint(self, *, after: tuple[Phase, int] | None = None) -> None:
        """``after`` names the phase that has just ended and its last step."""
        unfinished = self._unfinished()  # a collective: all ranks contribute their generators' states
        if not self.group.is_rank0:
            return
        path = self.assignment.folder / CHECKPOINT_FILE
        self.state.write(path, digest=self.digest, unfinished=unfinished, revisions=self.assignment.revisions)
        phase, step = after or ((unfinished[0].phase, unfinished[1]["step"]) if unfinished else ("evaluation", 0))
        self.reporter.emit(CheckpointWritten(phase=phase, step=step))


def _adapted(network: nn.Module) -> str:
    adapter = adapter_of(network)
    return "" if adapter is None else f" with an adapter of {adapter.num_parameters:,}"
