"""A job in miniature: teachers, chain, student and control each take one step of their own method on two samples.

Invariant: steps do not influence each other. The learning rate is so small that a teacher's outputs are the same before and after
its step, and no job is refused for what only a long training would reveal.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from service.spec import JobSpec
from service.spec.job import TeacherSpec
from service.spec.source import split_source
from service.spec.training import TrainingSpec
from service.spec.warning_message import WarningMessage
from worker.data import Data
from worker.data.adopted import unknown_classes, with_classes
from worker.data.epoch import TransferRows
from worker.data.language_preprocessing import USUAL_ROW_TOKENS, LanguagePreprocessing
from worker.data.preprocessing import first
from worker.data.samples import PREPROCESS_ONCE_BYTES
from worker.data.tensors import Inputs, num_bytes, num_rows, only_tensor
from worker.distributed.sync_batch_norm import check_no_layer_drop
from worker.errors import JobFault
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.evaluation.precision import Precision, choose_precision
from worker.evaluation.tokens import BATCH_TOKENS
from worker.job.attempt import Attempt
from worker.job.early_checks import check_early
from worker.job.labels import without_control
from worker.job.networks import Networks
from worker.job.plan import JobPlan, plan_of
from worker.job.reading import read_all
from worker.job.roles import CONTROL, STUDENT, Role, by_name
from worker.job.teacher_check import TeacherCheck, compare_some
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.models import UnfitArchitecture, UnreadableNetwork, build_on_meta, num_parameters
from worker.models.build_transformers import LIBRARY_ERRORS
from worker.models.folder import stored_parameters
from worker.models.network_kind import blank
from worker.models.privileged import PrivilegedNetwork
from worker.preflight.estimate import GIB, InferenceProfile, Profile, num_ranks
from worker.preflight.networks import PreflightNetworks, count_rows
from worker.preflight.outcome import located_at
from worker.preflight.profile import StepProfile, profile_inference, profile_on_meta, profile_step, size_of, with_fake_tensors
from worker.preflight.sampling import STEP_SAMPLES, first_texts, sample_data
from worker.protocol import Assignment, Event, PhaseStarted, Reporter, StopRequest
from worker.tasks import TASKS
from worker.teachers.ensemble import Teachers
from worker.teachers.hub import is_out_of_reach
from worker.trained import TrainedNetwork
from worker.training.loop import Training
from worker.training.result import Weights

logger = logging.getLogger(__name__)

_LEARNING_RATE = 1e-12
"""Of every optimizer; too small to change a weight."""
_SCORING_SECONDS = 5.0
"""For all given teachers together; the attempt scores each on the whole validation split."""
MOST_BYTES = 8 * GIB
"""Limit of weights, gradients and optimizer states in memory: half a billion trained weights, which are built in some seconds.
Larger networks are profiled on the meta device."""
_READ_CHARACTERS = 5_000_000
"""Of each split, by each network: about five seconds of a tokenizer's work."""
_BYTES = 4
"""Of a weight in float32."""


class PreflightRun(Attempt):
    """Runs one job in miniature."""

    networks: PreflightNetworks

    def __init__(self, spec: JobSpec, assignment: Assignment, reporter: Reporter, *, untrained: frozenset[Role]) -> None:
        """``untrained`` are teachers that another job trains: here they are built, and used with their initial weights."""
        super().__init__(miniature_spec(spec), assignment, _QuietReporter(reporter))
        self.whole_spec, self._untrained, self._check_reporter = spec, untrained, reporter
        self._most_bytes = MOST_BYTES if assignment.most_bytes is None else min(MOST_BYTES, assignment.most_bytes)
        self.profiles: dict[Role, Profile] = {}
        self.parameters: dict[Role, int] = {}
        self.notes: list[str] = []
        self.warnings: list[WarningMessage] = []
        self.is_complete = True
        """Whether every network was profiled."""
        self._resident: dict[Role, InferenceProfile] = {}

    def profile_job(self) -> None:
        """Runs all steps in order. Raises what the job itself would end with, mostly as ``LocatedError``, and StopAsked."""
        if self.assignment.num_threads is not None:
            torch.set_num_threads(self.assignment.num_threads)
        with located_at("/dataset/source"):
            whole = self._load_whole()
            self._sampled = sample_data(whole, row_tokens=self._row_tokens())
        self.warnings += whole.warnings
        self.data = self._sampled.step_data
        inputs, scratch = self.assignment.inputs, self.assignment.folder
        self.networks = PreflightNetworks(self.spec, self._sampled, device=self.device, inputs=inputs, scratch=scratch)
        self._job_networks = Networks(self.whole_spec, self.data, device=self.device, inputs=inputs, scratch=scratch)
        self.teacher_outputs = TeacherOutputProvider(self.networks, self.phases, cache=None)
        self.is_complete = self._load_given_teachers(whole)
        self._read(whole)
        del whole
        if not self.is_complete:
            self._run_student_only()
        elif (networks := self._build_all_on_meta()) is not None:
            self._profile_all_on_meta(networks)
        else:
            self._run_all()

    def _load_whole(self) -> Data:
        """All data, with the classes of the given teachers where the data do not tell them.

        A target whose classes only a teacher knows that is out of reach, or still to be trained, is tried with two.
        """
        data = self._load_data()
        inputs, scratch = self.assignment.inputs, self.assignment.folder
        networks = Networks(self.whole_spec, data, device=self.device, inputs=inputs, scratch=scratch)
        try:
            data = networks.adopt_classes()
        except (JobFault, UnreadableNetwork):  # the teachers are loaded later, where a fault is theirs
            unknown = dict.fromkeys(unknown_classes(networks.data.targets), ("0", "1"))
            data = with_classes(networks.data, unknown, relabel=TASKS[data.task].relabel)
        self.spec, self.whole_spec = (without_control(spec, data) for spec in (self.spec, self.whole_spec))
        return data

    def _load_given_teachers(self, data: Data) -> bool:
        """Loads the teachers that this job does not train, and scores them on as many validation rows as there is time for.

        Returns whether each is available and fits into memory.
        """
        give_up_at = time.monotonic() + _SCORING_SECONDS
        for role, spec in self.networks.teachers.items():
            if self.networks.is_trained(role):
                continue
            with located_at(f"/{self.networks.spec_path(role)}/source"):
                folder = self.assignment.inputs.get(spec.source)
                count = 0 if folder is None else stored_parameters(folder)
                if count * _BYTES > self._most_bytes:
                    self.parameters[role], self._resident[role] = count, InferenceProfile(count * _BYTES, 0.0, 0)
                    self.notes.append(
                        f"The {role} of {count:,} parameters is too large to be tried on a CPU, and so is the method."
                    )
                    return False
                try:
                    self._score_given_teacher(role, data, is_over=lambda: time.monotonic() > give_up_at)
                except JobFault as fault:
                    if split_source(spec.source).kind != "hub" or not is_out_of_reach(fault):
                        raise
                    self.notes.append(f"The {role} was not tried, nor the method. {fault.message}")
                    return False
        return True

    def _read(self, whole: Data) -> None:
        """Reads the texts of all splits, as far as a check has time for, by each network whose tokenizer is there."""
        if TASKS[self.spec.task].info.input_kind != "text":
            return
        roles = [role for role in [*self.networks.teachers, *self.networks.chain] if self.networks.is_trained(role)]
        if self.is_complete:
            roles = [*self.networks.teachers, *self.networks.chain, STUDENT]
        elif self._has_own_preprocessing():
            roles.append(STUDENT)
        splits = []
        for split in whole.splits.values():
            some = first_texts(split, _READ_CHARACTERS)
            if len(some) < len(split):
                self.notes.append(f"Of the {split.name}, the first {len(some):,} of {len(split):,} texts were read.")
            # How many rows packed texts fill is known only by the job's own tokenizer.
            splits.append(some if self._sampled.holds_all_texts else replace(some, is_packed=False))
        with located_at("/dataset/source"):
            self.warnings += read_all(self.networks, splits, roles=roles)

    def _score_given_teacher(self, role: Role, data: Data, *, is_over: Callable[[], bool]) -> None:
        """Raises JobFault if the spec does not accept the teacher's score."""
        teacher = self.networks.load_fitted(role, data)
        self.warnings += teacher.warnings
        if data.targets.are_embeddings:
            return
        spec, place = self.networks.teachers[role], self.networks.spec_path(role)
        compared = compare_some(teacher, data, is_over=is_over)
        if data.targets.are_tokens and not compared:
            return  # no row of tokens was filled in the time; the attempt scores it on the whole split
        check = TeacherCheck(spec, teacher, self.spec.task, pointer=place, is_given=True)
        self.warnings += check.judge(compared)

    def _check_teacher(self, role: Role, teacher: TrainedNetwork) -> None:
        """Checks nothing: two samples say nothing of a teacher."""

    def _run_all(self) -> None:
        for place, training in [
            ("training", self.spec.training),
            *((f"{place}/training", teacher.training) for place, teacher in self.spec.teachers.items()),
        ]:
            if training is not None:
                with located_at(f"/{place}/precision"):
                    choose_precision(training.precision, self.device)
        check_early(self.networks)
        teachers = taught_by = self._teachers()
        self._label_with_teacher(teachers)
        for role in self.networks.chain:
            self._distil(taught_by, role)
            taught_by = Teachers({str(role): self._record_resident(role, self._rebuild(role))}, (1.0,), self.data.targets)
        if self.plan.training_of(STUDENT).peer is None:
            self._distil(taught_by, STUDENT)
        self._note_parameters(STUDENT)
        if self.spec.evaluation.control:
            self._resident[STUDENT] = self.profiles[STUDENT].network
            self._train(CONTROL, spec=self.spec.training, num_steps=1)
            self._note_parameters(CONTROL)

    def _run_student_only(self) -> None:
        """Trains the student on its labels, if it has a preprocessing of its own and labels."""
        if self._has_own_preprocessing() and not self.data.targets.are_embeddings:
            self._train(STUDENT, spec=self.spec.training)
            self._note_parameters(STUDENT)

    def _has_own_preprocessing(self) -> bool:
        return TASKS[self.spec.task].info.input_kind != "text" or self.spec.student.tokenizer is not None

    def _build_all_on_meta(self) -> dict[Role, nn.Module] | None:
        """The networks of this job on the meta device; None if all of them fit into memory."""
        networks: dict[Role, nn.Module] = {}
        num_bytes = 0
        roles = self.networks.plan.trained
        if all(self.networks.architecture(role).name != "transformers" for role in roles):
            return None
        for role in roles:
            try:
                networks[role] = self._build_on_meta(role)
            except UnfitArchitecture:
                continue  # building it for real reports the error, unless the meta device is to blame
            # Weights alone if it is not trained; else gradients and two moments as well.
            num_bytes += num_parameters(networks[role]) * _BYTES * (1 if role in self._untrained else 4)
        return networks if num_bytes > self._most_bytes else None

    def _build_on_meta(self, role: Role) -> nn.Module:
        shape = self.networks.preprocessing(role).input_shape(self.data.splits["train"].inputs)
        return build_on_meta(
            self.networks.architecture(role),
            kind=TASKS[self.data.task].network,
            input_shape=shape,
            num_outputs=self.data.targets.width,
        )

    def _profile_all_on_meta(self, networks: dict[Role, nn.Module]) -> None:
        self.notes.append("The networks are too large to be tried on a CPU: figures are those of their shapes, on labels alone.")
        for role in self.networks.teachers:
            if not self.networks.is_trained(role):
                self._record_resident(role, self.networks.load_pretrained(role))
        for role, network in networks.items():
            self.phases.check_stop()
            shape = self.networks.preprocessing(role).input_shape(self.data.splits["train"].inputs)
            self.parameters[role] = num_parameters(network)
            spec = self._job_networks.training_spec(role)
            if role not in self._untrained:
                self._check_distributed(network)
            try:
                with with_fake_tensors(network):
                    inputs = blank(shape, STEP_SAMPLES)
                    step = profile_on_meta(network, inputs, spec.optimizer, self._precision(role))
                    asked = InferenceProfile(size_of(network), *profile_inference(network, inputs))
            except LIBRARY_ERRORS as error:
                logger.warning("The %s has no figures: it does not compute on shapes alone", role, exc_info=error)
                self.notes.append(f"The {role} has no figures: it does not compute on shapes alone.")
                self.is_complete = False
                continue
            if role not in self._untrained:
                self._record_profile(role, step, asked, inputs, data=0.0)
            if role != STUDENT:
                self._resident[role] = asked
        if self.spec.evaluation.control:
            self.parameters[CONTROL] = self.parameters[STUDENT]

    def _precision(self, role: Role) -> Precision:
        """The precision that a network is profiled in."""
        return choose_precision(self.networks.training_spec(role).precision, self.device)

    @property
    def plan(self) -> JobPlan:
        """The trainings of the whole job; it does not train what another job is to train."""
        return plan_of(self.whole_spec).without(self._untrained)

    def num_samples(self, role: Role) -> int | None:
        """Size of the training split as that network reads it; None if its preprocessing is unknown."""
        if not self._sampled.step_data.splits["train"].is_packed:
            transfer = self.transfer(role)
            return self._sampled.counts["train"] + (0 if transfer is None else transfer.count)
        if not self.is_complete and not self._has_own_preprocessing():
            return None
        count, is_exact = count_rows(self.networks.preprocessing(role), self._sampled)
        note = "Rows of tokens, and so the steps, are estimated from the first million characters."
        if not is_exact and note not in self.notes:
            self.notes.append(note)
        return count

    def transfer(self, role: Role) -> TransferRows | None:
        """The transfer rows among that network's samples."""
        return self._sampled.transfer if self.networks.reads_transfer(role) else None

    # Steps of an attempt, in miniature.

    def _teacher(self, role: Role) -> TrainedNetwork:
        teacher = self._rebuild(role) if role in self._untrained else super()._teacher(role)
        return self._record_resident(role, teacher)

    def _distil(self, teachers: Teachers, role: Role) -> None:
        place, spec = next(iter(self.spec.teachers.items()))
        with located_at(f"/{place}" if spec.source == "train" else f"/{place}/source"):
            super()._distil(teachers, role)

    def _train(self, role: Role, **options: Any) -> None:
        self.phases.check_stop()
        own = role in self.networks.teachers
        with located_at(
            "/method" if role in self.networks.chain else f"/{self.networks.spec_path(role)}/training" if own else "/training"
        ):
            super()._train(role, **options)

    def _run_training(self, training: Training) -> None:
        role = Role.parse(training.name)
        self._check_distributed(training.network)
        self._check_reporter.emit(PhaseStarted("checking", f"One step of the {role} on {len(training.samples)} samples"))
        step = profile_step(training)
        inputs = training.samples.inputs_from(0, STEP_SAMPLES)
        network = InferenceProfile(size_of(training.network), *profile_inference(training.network, inputs))
        data = self._data_bytes(training, inputs, self.num_samples(role) or 0)
        self._record_profile(role, step, network, inputs, data=data, has_views=training.samples.views is not None)

    def _record_profile(
        self, role: Role, step: StepProfile, network: InferenceProfile, inputs: Inputs, *, data: float, has_views: bool = False
    ) -> None:
        is_taught = role == STUDENT or role in self.networks.chain
        are_tokens = self.data.targets.are_tokens
        self.profiles[role] = Profile(
            self._job_networks.training_spec(role),
            step,
            network,
            by_name(self._resident),
            runs_each_step=is_taught and (are_tokens or has_views),
            data=data,
            num_samples=self.num_samples(role) or 0,
            evaluation_batch=max(1, BATCH_TOKENS // only_tensor(inputs).shape[1]) if are_tokens else EVALUATION_BATCH,
        )

    def _check_distributed(self, network: nn.Module) -> None:
        """Raises JobFault for a network that several devices cannot train."""
        if num_ranks(self.spec) > 1:
            check_no_layer_drop(network)

    def _rebuild(self, role: Role, weights: Weights | None = None) -> TrainedNetwork:
        """The network that took the step."""
        return self.networks.trained_network(role, self.networks.build(role).state_dict(), trained=None, last_test=None)

    # Records.

    def _record_resident(self, role: Role, network: TrainedNetwork) -> TrainedNetwork:
        inputs = network.samples(self.data.splits["train"]).inputs_from(0, STEP_SAMPLES)
        self._resident[role] = InferenceProfile(size_of(network.network), *profile_inference(network.network, inputs))
        self.parameters[role] = num_parameters(network.network)
        return network

    def _note_parameters(self, role: Role) -> None:
        network = self.networks.build(role)
        if isinstance(network, PrivilegedNetwork):
            network = self.networks.build_plain(role, num_outputs=self.data.targets.width)
        self.parameters[role] = num_parameters(network)

    def _data_bytes(self, training: Training, inputs: Inputs, num_samples: int) -> float:
        """Bytes on a GPU of the training and validation samples and of the teacher's outputs on them."""
        samples, reads = training.samples, self.networks.preprocessing(Role.parse(training.name))
        answers = float(training.criterion.stored_bytes(num_samples))
        if reads.on_host:
            return answers
        ready = num_bytes(inputs) / num_rows(inputs)
        if isinstance(reads, LanguagePreprocessing):
            stored = ready + only_tensor(inputs).shape[1]  # one byte of the mask per token
        else:
            few = first(self.data.splits["train"].inputs, STEP_SAMPLES)
            stored = num_bytes(reads.prepare(few)) / len(few)
            if samples.views is None and reads.keeps_size and ready * num_samples <= PREPROCESS_ONCE_BYTES:
                stored = ready
        counts = self._sampled.counts
        return answers + stored * num_samples * (1 + counts["validation"] / counts["train"])

    def _row_tokens(self) -> int:
        tokenizers = [*(each.tokenizer for each in self.spec.teachers.values()), self.spec.student.tokenizer]
        longest = [each.max_length for each in tokenizers if each is not None]
        return self.spec.dataset.row_tokens or max(longest, default=USUAL_ROW_TOKENS)


def miniature_spec(spec: JobSpec) -> JobSpec:
    """The spec of a job of one step on a batch of two."""
    # No CPU trains in fp16, which takes as much memory as bf16; auto is bf16 on all GPUs since Ampere.
    on_gpu: dict[str, Any] = {"fp16": "bf16", "auto": "bf16"} if spec.resources.gpus else {}

    def miniature(training: TrainingSpec) -> TrainingSpec:
        changes = {
            "epochs": 1,
            "max_steps": None,
            "batch_size": STEP_SAMPLES,
            "gradient_accumulation": 1,
            "early_stopping": None,
            "optimizer": training.optimizer.model_copy(update={"learning_rate": _LEARNING_RATE}),
            "precision": on_gpu.get(training.precision, training.precision),
        }
        return training.model_copy(update=changes)

    def teacher(each: TeacherSpec) -> TeacherSpec:
        return each.model_copy(update={"training": None if each.training is None else miniature(each.training)})

    several = isinstance(spec.teacher, list)
    teachers = [teacher(each) for each in spec.teachers.values()]
    return spec.model_copy(update={"teacher": teachers if several else teachers[0], "training": miniature(spec.training)})


class _QuietReporter:
    """Forwards stop requests and drops events: the phases of a training are not those of a check."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def emit(self, event: Event) -> None:
        logger.debug("%s", event)

    def stop_request(self) -> StopRequest | None:
        return self._reporter.stop_request()
