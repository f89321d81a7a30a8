"""The trainer's main: data → teacher → student → control → evaluation → export.

It knows a spec, a folder and devices, and no database, no Redis, no HTTP; it asks nobody but the Hub, for a teacher that is
there. Invariant: between any two optimizer steps the whole job is in one :class:`Attempt`'s ``finished`` and the running
:class:`Training`, and a checkpoint holds both, so that on a CPU a job that is killed anywhere and started again ends with the
same student, bit for bit, as one that never was. Several ranks run it side by side up to the last training; the first of them
writes every file, and goes on alone from there.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.spec import JobSpec, parse_spec
from service.spec.language_fit import shares_tokenizer
from service.spec.methods import DeepMutual, SequenceLevel
from service.spec.source import split_source
from service.spec.training import TrainingSpec
from worker.data import Data, Split, first, load_data
from worker.data.samples import Samples
from worker.distributed.group import is_peer_failure, join
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import StopAsked
from worker.evaluation.evaluate import EvaluationResult, predict, score_outputs
from worker.export.folder import export_network, result_folder, write_spec
from worker.job.assessment import evaluate_and_export
from worker.job.early_checks import check_early
from worker.job.error_mapping import as_failure
from worker.job.networks import Networks, local_input
from worker.job.reporting import PhaseReporter, RankZeroReporter
from worker.job.roles import Role, part_of, phase_of, seed_replicates
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.models import num_parameters
from worker.models.language_network import LanguageNetwork
from worker.protocol import (
    CHECKPOINT_FILE,
    RESULT_FOLDER,
    Assignment,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    Part,
    Phase,
    Reporter,
    Stopped,
    StopRequest,
)
from worker.teachers.ensemble import Teachers
from worker.teachers.hub import pinned_spec
from worker.trained import TrainedNetwork
from worker.training.callbacks import TrainingReporter
from worker.training.causal_lm import LanguageTeacher, NextTokenCriterion, generate_texts, language_criterion
from worker.training.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint
from worker.training.loop import Criterion, Training, train
from worker.training.mutual import MutualTraining
from worker.training.objective import TrainingObjective, extra_inputs, labels_only
from worker.training.result import TrainingResult, Weights

logger = logging.getLogger(__name__)

_DIGESTED_SAMPLES = 100


class RankLost(Exception):
    """Another rank is gone, and this one cannot go on: what happened is that other's to tell."""


def run(assignment: Assignment, reporter: Reporter, *, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Runs one attempt to its last event: ``Finished``, ``Stopped`` or ``Failed``. Only what the reporter raises gets out.

    Of several ``group`` each runs this; what any but the first says is its failure alone.

    Raises:
        RankLost: another rank is gone.
    """
    try:
        spec = parse_spec(assignment.spec)
        with _repeatable(torch.device(assignment.devices[group.rank])):
            last = Attempt(spec, assignment, reporter, group=group).run()
    except Exception as error:
        if group.is_peer_failure(error):
            raise RankLost from error
        last = as_failure(error)
    if last is not None and (group.is_rank0 or isinstance(last, Failed)):
        reporter.emit(last)


def run_rank(assignment: Assignment, reporter: Reporter, *, index: int, rendezvous: Path | None) -> None:
    """Runs one rank of an attempt; of several, who find each other by a fresh file ``rendezvous``. Without it the only one.

    Raises:
        RankLost: another rank is gone.
    """
    if rendezvous is None:
        run(assignment, reporter)
        return
    device = torch.device(assignment.devices[index])
    try:
        group = join(rendezvous, index=index, count=len(assignment.devices), device=device)
    except Exception as error:
        if is_peer_failure(error):
            raise RankLost from error
        reporter.emit(as_failure(error))
        return
    run(assignment, reporter, group=group)


class Attempt:
    """One attempt at one job, from wherever the attempts before it came to."""

    def __init__(
        self, spec: JobSpec, assignment: Assignment, reporter: Reporter, *, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.spec, self.assignment, self.group = spec, assignment, group
        self.device = torch.device(assignment.devices[group.rank])
        self._own_reporter = reporter
        self.reporter: Reporter = RankZeroReporter(reporter, group)
        self.phases = PhaseReporter(self.reporter)
        self.finished: dict[Role, TrainingResult] = {}
        self.last_test: dict[Role, EvaluationResult] = {}
        """How the last weights of each finished network do on the test split: they are not kept for all of them."""
        self.repeats: dict[Role, EvaluationResult] = {}
        """How each repeat from another seed does on the test split; its weights are not kept."""
        self.training: Training | None = None
        """The one that runs."""
        self.interrupted: tuple[Role, dict[str, Any]] | None = None
        """The training that the attempt before was at, until this one is there again."""

    def run(self) -> Event | None:
        """Everything, in order; the attempt's last event, None of a rank that another goes on without."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # what asks for "the" device, as for bf16, means this one
        if self.assignment.num_threads is not None or self.group.world_size > 1:
            num_threads = self.assignment.num_threads or torch.get_num_threads()
            torch.set_num_threads(max(1, num_threads // self.group.world_size))
        self.data = self._load_data()
        self.networks = Networks(
            self.spec, self.data, device=self.device, inputs=self.assignment.inputs, scratch=self.assignment.folder
        )
        self.teacher_outputs = TeacherOutputProvider(self.networks, self.phases, cache=self.assignment.cache, group=self.group)
        self.digest = _digest(self.spec, self.data)
        self._resume()
        if not self.finished and self.interrupted is None and self.group.is_rank0:
            check_early(self.networks)
        self.group.all_true(True)  # before the checkpoint that each has read is replaced
        try:
            teachers = taught_by = self._teachers()
            self._label_with_teacher(teachers)
            networks = dict(teachers.members)
            for role in self.networks.chain:
                self._distil(taught_by, role)
                networks[role] = self._rebuild(role)
                taught_by = Teachers({role: networks[role]}, (1.0,), self.data.targets)
            self._distil(taught_by, "student")
            networks["student"] = self._rebuild("student")
            self._train_control()
            self._train_replicates(taught_by)
            if not self.group.is_rank0:
                return None
            self.reporter, self.phases = self._own_reporter, PhaseReporter(self._own_reporter)
            if "control" in self.finished:
                networks["control"] = self._rebuild("control")
            report = evaluate_and_export(
                self.networks,
                networks,
                teachers,
                repeats=self.repeats,
                trained=self.finished["student"].best,
                phases=self.phases,
                job_id=self.assignment.job_id,
                folder=self.assignment.folder / RESULT_FOLDER,
            )
        except StopAsked as stop:
            if stop.request.reason in {"cancel", "time_limit"}:
                self._export_partial_student(stop.request)
            if stop.request.reason != "cancel":
                self._write_checkpoint()
            return Stopped(reason=stop.request.reason)
        return Finished(result=report.headline())

    # The phases.

    def _load_data(self) -> Data:
        source = self.spec.dataset.source
        path = None if split_source(source).kind == "builtin" else local_input(self.assignment.inputs, source)
        return load_data(self.spec.dataset, path, task=self.spec.task)

    def _label_with_teacher(self, teachers: Teachers) -> None:
        """Of embeddings the teacher's stand in the labels' place: they are what is learnt and what is measured against."""
        if self.data.targets.are_embeddings:
            splits = {
                # What the training split's are the method asks, or the cache knows.
                name: split if name == "train" else replace(split, labels=teachers.outputs(split).cpu())
                for name, split in self.data.splits.items()
            }
            self.data = self.networks.data = replace(self.data, splits=splits)

    def _teachers(self) -> Teachers:
        weights = tuple(spec.weight for spec in self.networks.teachers.values())
        return Teachers({role: self._teacher(role) for role in self.networks.teachers}, weights, self.data.targets)

    def _teacher(self, role: Role) -> TrainedNetwork:
        if not self.networks.is_trained(role):
            return self.networks.load_pretrained(role)
        if isinstance(self.spec.method, DeepMutual):
            self._train_peers()
        else:
            self._train(role, spec=self.networks.training_spec(role))
        return self._rebuild(role)

    def _train_peers(self) -> None:
        """Student and teacher at the same time, each taught by the other."""

        def build_objective() -> TrainingObjective:
            method = self.networks.map_layers(
                self.networks.build("student"), self.networks.build("teacher"), self.networks.preprocessing("teacher")
            )
            return TrainingObjective(method.objective(targets=self.data.targets, labels=self.data.splits["train"].labels))

        self._train("student", spec=self.spec.training, build_objective=build_objective, peer="teacher")

    def _distil(self, teachers: Teachers, role: Role) -> None:
        """The student, or one of the chain to it."""
        if role in self.finished:
            return
        samples = self.networks.samples(role, "train")
        if self.data.targets.are_tokens:
            self._distil_language_model(teachers.first, samples, role)
            return
        method = self.networks.map_layers(
            self.networks.build(role).to(self.device), teachers.first.network, teachers.first.preprocessing
        )
        options: dict[str, Any] = {}
        if samples.views is None:
            samples, options["teacher_features"] = self.teacher_outputs.precomputed(teachers, samples, method, role=role)
        else:
            views = samples.views
            by_member = [
                self.teacher_outputs.per_view(name, each, samples, views, method, role=role)
                for name, each in teachers.members.items()
            ]
            options["per_step"] = teachers.combine(by_member)

        def build_objective() -> TrainingObjective:
            objective = method.objective(targets=self.data.targets, labels=samples.labels)
            return TrainingObjective(objective, method.student_layers, extra_inputs=extra_inputs(self.spec.method), **options)

        self._train(
            role,
            samples=samples,
            spec=self.networks.training_spec(role),
            build_objective=build_objective,
            teacher=teachers.first.network,
        )

    def _distil_language_model(self, teacher: TrainedNetwork, samples: Samples, role: Role) -> None:
        """Of language models the teacher is asked in each step; only what it is to write itself comes before the first."""
        method, language_teacher = self.spec.method, LanguageTeacher.of(teacher.network, teacher.preprocessing)
        if not shares_tokenizer(self.spec):
            language_teacher = replace(language_teacher, samples=teacher.samples(self.data.splits["train"]))
        written = None
        if isinstance(method, SequenceLevel):
            self.phases.start(
                "cache", f"The {role}'s teacher writes a text for each of {len(samples):,} rows, once for all epochs"
            )
            seed = self.networks.training_spec(role).seed
            tell = partial(self.phases.report, "cache", total=len(samples))
            written = generate_texts(method, language_teacher, samples, seed=seed, after_batch=tell, group=self.group)

        def criterion_for(network: LanguageNetwork) -> Criterion:
            return language_criterion(method, network, samples, language_teacher, written=written, group=self.group)

        self._train(
            role,
            samples=samples,
            spec=self.networks.training_spec(role),
            criterion_for=criterion_for,
            teacher=teacher.network,
        )

    def _train_control(self) -> None:
        if self.spec.evaluation.control:
            num_steps = self.finished["student"].figures.steps
            self._train("control", spec=self.spec.training, num_steps=num_steps)

    def _train_replicates(self, teachers: Teachers) -> None:
        """The student, and its control, again from the other seeds that the spec names."""
        for roles in seed_replicates(self.spec):
            if roles[-1] in self.repeats:
                continue
            self._distil(teachers, roles[0])
            for control in roles[1:]:
                self._train(control, spec=self.networks.training_spec(control), num_steps=self.finished[roles[0]].figures.steps)
            test = self.data.splits["test"]
            for role in roles:
                self.repeats[role] = score_outputs(self._rebuild(role).outputs(test), test.labels, self.data.targets)
            for role in roles:
                del self.finished[role], self.last_test[role]
            self._write_checkpoint()

    def _train(
        self,
        role: Role,
        *,
        spec: TrainingSpec,
        samples: Samples | None = None,
        build_objective: Callable[[], TrainingObjective] | None = None,
        criterion_for: Callable[[LanguageNetwork], Criterion] | None = None,
        num_steps: int | None = None,
        peer: Role | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        """One network's training.

        ``peer`` names another that is trained in the same steps, as the same spec says; of ``teacher`` a student may take layers.
        """
        if role in self.finished:
            return
        # Student and control start from the same seed, hence from the same weights, and see the same batches.
        self.group.seed(spec.seed)
        network = self.networks.build(role)
        if teacher is not None and self.spec.student.source == "teacher-layers":
            self.networks.copy_teacher_layers(network, teacher)
        options: dict[str, Any] = {"spec": spec, "num_steps": num_steps}
        # After the network: the method's own weights must not change the student's, nor may its peer's.
        options["training_objective"] = build_objective() if build_objective else labels_only(self.data.targets)
        if isinstance(network, LanguageNetwork):
            samples = samples or self.networks.samples(role, "train")
            options["criterion"] = (criterion_for or partial(NextTokenCriterion, samples=samples, group=self.group))(network)
        if peer is None:
            training = self._training(Training, role, network, samples=samples, **options)
        else:
            beside = self._training(Training, peer, self.networks.build(peer), **options)
            training = self._training(MutualTraining, role, network, samples=samples, peer=beside, **options)
        if self.interrupted is not None and self.interrupted[0] == role:
            training.restore(self.interrupted[1])
        self.interrupted, self.training = None, training
        beginning = f"Resuming at step {training.step:,} the training of" if training.step else "Training"
        beginning += f" the {peer} and" if peer else ""
        self.phases.start(
            phase_of(role),
            f"{beginning} the {role}, {self.networks.architecture(role).name} of {num_parameters(network):,} parameters, "
            f"on {len(training.samples):,} samples in at most {training.last_step:,} steps",
        )
        self._run_training(training)

    def _run_training(self, training: Training) -> None:
        """To its end, from wherever it stands; what came of it is kept and checkpointed."""
        part = part_of(training.name)
        callback = TrainingReporter(
            self.reporter,
            write_checkpoint=self._write_checkpoint,
            group=self.group,
            part=part,
            earlier_steps=self._trained_steps(part),
        )
        trained = train(training, callback)
        if isinstance(training, MutualTraining):
            self._record_result(training.peer, training.peer.finish())
        self._record_result(training, trained)
        self.training = None
        self._write_checkpoint(after=(training.phase, trained.figures.steps))

    def _trained_steps(self, part: Part) -> int:
        """Of the networks of a part that are trained already. What each of a finished repeat took is not kept: as the student."""
        steps = sum(trained.figures.steps for role, trained in self.finished.items() if part_of(role) == part)
        return steps + (len(self.repeats) * self.finished["student"].figures.steps if part == "repeats" else 0)

    def _training(
        self, kind: type[Training], role: Role, network: nn.Module, *, samples: Samples | None = None, **options: Any
    ) -> Training:
        return kind(
            network.to(self.device),
            phase=phase_of(role),
            name=role,
            samples=samples or self.networks.samples(role, "train"),
            validation=self.networks.samples(role, "validation"),
            targets=self.data.targets,
            group=self.group,
            **options,
        )

    def _record_result(self, training: Training, trained: TrainingResult) -> None:
        """What came of a training whose network still has its last weights."""
        test = self.networks.samples(training.name, "test")
        outputs = predict(training.network, test, after_batch=lambda done: self.phases.check_stop(), group=self.group)
        teacher = self.networks.teachers.get(training.name)
        of = None if teacher is None else teacher.targets
        self.last_test[training.name] = score_outputs(outputs, test.labels, self.data.targets, of=of)
        self.finished[training.name] = trained if training.name == "student" else replace(trained, last=None)

    def _export_partial_student(self, request: StopRequest) -> None:
        """Writes the student as far as it came, when the request wants it and there is one."""
        weights = None if request.keep == "none" else self._student_weights(best=request.keep == "best")
        if weights is None or not self.group.is_rank0:
            return
        with result_folder(self.assignment.folder / RESULT_FOLDER) as folder:
            export_network(self._rebuild("student", weights), folder / "student", targets=self.data.targets)
            write_spec(folder, pinned_spec(self.spec, self.networks.commits))

    def _student_weights(self, *, best: bool) -> Weights | None:
        trained = self.finished.get("student")
        if trained is not None:
            return trained.best if best else trained.last
        role, state = self._unfinished() or (None, {})
        if role != "student":
            return None
        # Before the first evaluation there is no best.
        weights: Weights = (best and state["best"]) or state["network"]
        return weights

    # The checkpoint.

    def _unfinished(self) -> tuple[Role, dict[str, Any]] | None:
        return (self.training.name, self.training.state()) if self.training is not None else self.interrupted

    def _write_checkpoint(self, *, after: tuple[Phase, int] | None = None) -> None:
        """``after`` names the phase that just ended and its last step."""
        unfinished = self._unfinished()  # which all ranks have a part in
        if not self.group.is_rank0:
            return
        state = {
            "digest": self.digest,
            "threads": torch.get_num_threads(),
            "unfinished": unfinished,
            "commits": self.networks.commits,
            "finished": {role: trained.state() for role, trained in self.finished.items()},
            "repeats": {role: asdict(result) for role, result in self.repeats.items()},
            "last_test": {role: asdict(result) for role, result in self.last_test.items()},
        }
        write_checkpoint(self.assignment.folder / CHECKPOINT_FILE, state)
        phase, step = after or ((phase_of(unfinished[0]), unfinished[1]["step"]) if unfinished else ("evaluation", 0))
        self.reporter.emit(CheckpointWritten(phase=phase, step=step))

    def _resume(self) -> None:
        """Takes up the folder's checkpoint. One that is damaged, or another job's, is never trained from: the job starts over."""
        try:
            state = read_checkpoint(self.assignment.folder / CHECKPOINT_FILE)
        except FileNotFoundError:
            return
        except DamagedCheckpoint as error:
            logger.warning("The checkpoint is damaged, so the job starts from its beginning: %s", error)
            return
        if state["digest"] != self.digest:
            logger.warning("The checkpoint belongs to another spec or other data, so the job starts from its beginning.")
            return
        if self.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            # Sums are split among threads: only as many of them give the same student, bit for bit.
            logger.info("Using %d threads, as the attempts before did.", state["threads"])
            torch.set_num_threads(state["threads"])
        self.finished = {role: TrainingResult.from_state(trained) for role, trained in state["finished"].items()}
        self.last_test = {role: EvaluationResult(**result) for role, result in state["last_test"].items()}
        self.repeats = {role: EvaluationResult(**result) for role, result in state["repeats"].items()}
        self.interrupted, self.networks.commits = state["unfinished"], state["commits"]
        logger.info("Resuming after %s.", ", ".join(self.finished) or "no finished phase")

    def _rebuild(self, role: Role, weights: Weights | None = None) -> TrainedNetwork:
        """A network of this job in ``eval()``, by default with its best weights."""
        trained = self.finished.get(role)
        if weights is None:
            weights = self.finished[role].best
        return self.networks.trained_network(role, weights, trained=trained, last_test=self.last_test.get(role))


def training_parts(spec: JobSpec) -> dict[str, Any]:
    """The parts of a spec that decide what is trained. A job's name, labels and priority may change while it waits."""
    parts = {"task", "dataset", "teacher", "student", "method", "training", "evaluation"}
    num_devices = spec.resources.num_devices
    # Sums are split among devices: only as many of them go on to the same student.
    return spec.model_dump(mode="json", include=parts) | ({"num_devices": num_devices} if num_devices > 1 else {})


def _digest(spec: JobSpec, data: Data) -> str:
    digest = hashlib.sha256(json.dumps(training_parts(spec), sort_keys=True).encode())
    digest.update(repr(data.targets).encode())
    for name in sorted(data.splits):
        split = data.splits[name]
        digest.update(repr((len(split), split.answers)).encode())
        digest.update(split.labels.numpy().tobytes())
        digest.update(_some_bytes(split))
    return digest.hexdigest()


def _some_bytes(split: Split) -> bytes:
    """The first samples' own bytes: enough to tell one file from another."""
    some = first(split.inputs, _DIGESTED_SAMPLES)
    return some.numpy().tobytes() if isinstance(some, Tensor) else repr(some).encode()


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a CPU, has torch choose deterministic kernels only, and puts its choice back afterwards."""
    if device.type != "cpu":
        yield
        return
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill_memory = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Would write NaN into all new memory, to catch kernels that read it; no kernel in use does.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill_memory
