"""A job in miniature: its own teachers, chain, student and control, each taking one step of its own method on two samples.

Invariant: what a step changes has no say in what comes next: the learning rate is next to nothing, so that a teacher after its
first step teaches as it would before, and what only a long training would reveal refuses no job.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from service.spec import JobSpec
from service.spec.data import INPUT_KINDS
from service.spec.job import TeacherSpec
from service.spec.methods import DeepMutual
from service.spec.source import split_source
from service.spec.training import TrainingSpec
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.preprocessing import first
from worker.data.samples import PREPROCESS_ONCE_BYTES, Samples
from worker.distributed.sync_batch_norm import check_no_layer_drop
from worker.errors import JobFault
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.evaluation.precision import Precision, choose_precision
from worker.evaluation.tokens import BATCH_TOKENS
from worker.job.attempt import Attempt
from worker.job.early_checks import check_early
from worker.job.networks import Networks
from worker.job.roles import Role
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.methods.layer_mapping import LayerMapping
from worker.models import UnfitArchitecture, build_on_meta, num_parameters
from worker.models.folder import stored_parameters
from worker.models.privileged import PrivilegedNetwork
from worker.models.transformers_network import LIBRARY_ERRORS, blank
from worker.preflight.estimate import GIB, Asked, Profile, num_ranks
from worker.preflight.networks import FewNetworks, count_rows
from worker.preflight.outcome import at
from worker.preflight.profile import StepProfile, profile_inference, profile_on_meta, profile_step, size_of, sketching
from worker.preflight.sampling import STEPPED, few_rows
from worker.protocol import Assignment, Event, PhaseStarted, Reporter, StopRequest
from worker.teachers.compute import PRECOMPUTE_BYTES
from worker.teachers.ensemble import Teachers
from worker.teachers.hub import is_out_of_reach
from worker.trained import USUAL_ROW_TOKENS, TrainedNetwork
from worker.training.loop import Training
from worker.training.objective import TeacherFeatures
from worker.training.result import Weights

logger = logging.getLogger(__name__)

_NEXT_TO_NOTHING = 1e-12
"""The learning rate of a step that is tried."""
MOST_BYTES = 8 * GIB
"""Of weights, gradients and optimizer state that are held to try a job: half a billion weights that are trained, built in some
seconds. Beyond it networks are looked at as shapes."""
_BYTES = 4
"""Of a weight in float32."""


class PreflightRun(Attempt):
    """Tries one job."""

    def __init__(self, spec: JobSpec, assignment: Assignment, reporter: Reporter, *, untrained: frozenset[Role]) -> None:
        """``untrained`` are teachers that another job trains: here they are built and teach as they begin."""
        super().__init__(miniature_spec(spec), assignment, _Silent(reporter))
        self._whole_spec, self._untrained, self._aloud = spec, untrained, reporter
        self._most_bytes = MOST_BYTES if assignment.most_bytes is None else min(MOST_BYTES, assignment.most_bytes)
        self.tried: dict[Role, Profile] = {}
        self.parameters: dict[Role, int] = {}
        self.notes: list[str] = []
        self.is_complete = True
        """Whether every network could be looked at."""
        self._present: dict[Role, Asked] = {}

    def try_out(self) -> None:
        """Everything, in order. Raises whatever the job itself would end with, most of it as ``LocatedError``; and StopAsked."""
        if self.assignment.num_threads is not None:
            torch.set_num_threads(self.assignment.num_threads)
        with at("/dataset/source"):
            self._rows = few_rows(self._load_data(), row_tokens=self._row_tokens())
        self.data = self._rows.stepped
        inputs, scratch = self.assignment.inputs, self.assignment.folder
        self.networks = FewNetworks(self.spec, self._rows, device=self.device, inputs=inputs, scratch=scratch)
        self._asked_for = Networks(self._whole_spec, self.data, device=self.device, inputs=inputs, scratch=scratch)
        asked = _RecordingProvider(self.networks, self.phases, cache=None)
        self.teacher_outputs, self._shapes = asked, asked.shapes
        self.is_complete = self._load_given()
        if not self.is_complete:
            self._try_student_alone()
        elif (sketches := self._sketches()) is not None:
            self._try_sketches(sketches)
        else:
            self._try_all()

    def _load_given(self) -> bool:
        """The teachers that are given; whether each could be had, and held here."""
        for role, spec in self.networks.teachers.items():
            if self.networks.is_trained(role):
                continue
            with at(f"/{self.networks.spec_path(role)}/source"):
                folder = self.assignment.inputs.get(spec.source)
                count = 0 if folder is None else stored_parameters(folder)
                if count * _BYTES > self._most_bytes:
                    self.parameters[role], self._present[role] = count, Asked(count * _BYTES, 0.0, 0)
                    self.notes.append(
                        f"The {role} of {count:,} parameters is too large to be tried on a CPU, and so is the method."
                    )
                    return False
                try:
                    self.networks.load_pretrained(role)
                except JobFault as fault:
                    if split_source(spec.source).kind != "hub" or not is_out_of_reach(fault):
                        raise
                    self.notes.append(f"The {role} was not tried, nor the method. {fault.message}")
                    return False
        return True

    def _try_all(self) -> None:
        for place, training in [
            ("training", self.spec.training),
            *((f"{place}/training", teacher.training) for place, teacher in self.spec.teachers.items()),
        ]:
            if training is not None:
                with at(f"/{place}/precision"):
                    choose_precision(training.precision, self.device)
        check_early(self.networks)
        teachers = taught_by = self._teachers()
        self._label_with_teacher(teachers)
        for role in self.networks.chain:
            self._distil(taught_by, role)
            taught_by = Teachers({role: self._stands_by(role, self._rebuild(role))}, (1.0,), self.data.targets)
        if not isinstance(self.spec.method, DeepMutual):
            self._distil(taught_by, "student")
        self._note_parameters("student")
        if self.spec.evaluation.control:
            self._present["student"] = self.tried["student"].network
            self._train("control", spec=self.spec.training, num_steps=1)
            self._note_parameters("control")

    def _try_student_alone(self) -> None:
        """On its labels, where it can read and has some."""
        if self._reads_by_itself() and not self.data.targets.are_embeddings:
            self._train("student", spec=self.spec.training)
            self._note_parameters("student")

    def _reads_by_itself(self) -> bool:
        return INPUT_KINDS[self.spec.task] != "text" or self.spec.student.tokenizer is not None

    def _sketches(self) -> dict[Role, nn.Module] | None:
        """Every network that this job trains, as shapes alone, where all of them together are too large to be tried."""
        sketches: dict[Role, nn.Module] = {}
        num_bytes = 0
        roles = [*filter(self.networks.is_trained, self.networks.teachers), *self.networks.chain, "student"]
        if all(self.networks.architecture(role).name != "transformers" for role in roles):
            return None
        for role in roles:
            try:
                sketches[role] = self._sketch(role)
            except UnfitArchitecture:
                continue  # building it says what is wrong, if it is no fault of the sketch
            # Untrained it is weights alone; else gradients and two moments lie beside them.
            num_bytes += num_parameters(sketches[role]) * _BYTES * (1 if role in self._untrained else 4)
        return sketches if num_bytes > self._most_bytes else None

    def _sketch(self, role: Role) -> nn.Module:
        shape = self.networks.preprocessing(role).input_shape(self.data.splits["train"].inputs)
        return build_on_meta(self.networks.architecture(role), input_shape=shape, num_outputs=self.data.targets.width)

    def _try_sketches(self, sketches: dict[Role, nn.Module]) -> None:
        self.notes.append("The networks are too large to be tried on a CPU: figures are those of their shapes, on labels alone.")
        for role in self.networks.teachers:
            if not self.networks.is_trained(role):
                self._stands_by(role, self.networks.load_pretrained(role))
        for role, network in sketches.items():
            self.phases.check_stop()
            shape = self.networks.preprocessing(role).input_shape(self.data.splits["train"].inputs)
            self.parameters[role] = num_parameters(network)
            spec = self._asked_for.training_spec(role)
            if role not in self._untrained:
                self._refuse_in_shares(network)
            try:
                with sketching(network):
                    inputs = blank(shape, STEPPED)
                    step = profile_on_meta(network, inputs, spec.optimizer, self._precision(role))
                    asked = Asked(size_of(network), *profile_inference(network, inputs))
            except LIBRARY_ERRORS as error:
                logger.warning("The %s has no figures: it does not compute on shapes alone", role, exc_info=error)
                self.notes.append(f"The {role} has no figures: it does not compute on shapes alone.")
                self.is_complete = False
                continue
            if role not in self._untrained:
                self._keep_tried(role, step, asked, inputs, data=0.0)
            if role != "student":
                self._present[role] = asked
        if self.spec.evaluation.control:
            self.parameters["control"] = self.parameters["student"]

    def _precision(self, role: Role) -> Precision:
        """In which a network is tried."""
        return choose_precision(self.networks.training_spec(role).precision, self.device)

    def trainings(self) -> dict[Role, TrainingSpec]:
        """The job's own, of all that it trains before the control."""
        if isinstance(self.spec.method, DeepMutual):
            return {"student": self._whole_spec.training}
        teachers = [role for role in self.networks.teachers if self.networks.is_trained(role) and role not in self._untrained]
        return {role: self._asked_for.training_spec(role) for role in [*teachers, *self.networks.chain, "student"]}

    def num_samples(self, role: Role) -> int | None:
        """Of the training split as that network reads it; None where it is not known how it does."""
        if not self._rows.stepped.splits["train"].is_packed:
            return self._rows.counts["train"]
        if not self.is_complete and not self._reads_by_itself():
            return None
        count, is_exact = count_rows(self.networks.preprocessing(role), self._rows)
        note = "Rows of tokens, and so the steps, are estimated from the first million characters."
        if not is_exact and note not in self.notes:
            self.notes.append(note)
        return count

    # What an attempt does, tried.

    def _teacher(self, role: Role) -> TrainedNetwork:
        teacher = self._rebuild(role) if role in self._untrained else super()._teacher(role)
        return self._stands_by(role, teacher)

    def _distil(self, teachers: Teachers, role: Role) -> None:
        place, spec = next(iter(self.spec.teachers.items()))
        with at(f"/{place}" if spec.source == "train" else f"/{place}/source"):
            super()._distil(teachers, role)

    def _train(self, role: Role, **options: Any) -> None:
        self.phases.check_stop()
        own = role in self.networks.teachers
        with at(
            "/method" if role in self.networks.chain else f"/{self.networks.spec_path(role)}/training" if own else "/training"
        ):
            super()._train(role, **options)

    def _run_training(self, training: Training) -> None:
        role: Role = training.name
        self._refuse_in_shares(training.network)
        self._aloud.emit(PhaseStarted("checking", f"One step of the {role} on {len(training.samples)} samples"))
        step = profile_step(training)
        inputs = training.samples.inputs_from(0, STEPPED)
        network = Asked(size_of(training.network), *profile_inference(training.network, inputs))
        data = self._data_bytes(training, inputs, self.num_samples(role) or 0)
        self._keep_tried(role, step, network, inputs, data=data, has_views=training.samples.views is not None)

    def _keep_tried(
        self, role: Role, step: StepProfile, network: Asked, inputs: Tensor, *, data: float, has_views: bool = False
    ) -> None:
        is_taught = role == "student" or role in self.networks.chain
        are_tokens = self.data.targets.are_tokens
        self.tried[role] = Profile(
            self._asked_for.training_spec(role),
            step,
            network,
            dict(self._present),
            asked_each_step=is_taught and (are_tokens or has_views),
            data=data,
            num_samples=self.num_samples(role) or 0,
            evaluated_at_once=max(1, BATCH_TOKENS // inputs.shape[1]) if are_tokens else EVALUATION_BATCH,
        )

    def _refuse_in_shares(self, network: nn.Module) -> None:
        """What several devices could not train."""
        if num_ranks(self.spec) > 1:
            check_no_layer_drop(network)

    def _rebuild(self, role: Role, weights: Weights | None = None) -> TrainedNetwork:
        """The very network that was tried."""
        return self.networks.trained_network(role, self.networks.build(role).state_dict(), trained=None, last_test=None)

    # What is noted of it.

    def _stands_by(self, role: Role, network: TrainedNetwork) -> TrainedNetwork:
        inputs = network.samples(self.data.splits["train"]).inputs_from(0, STEPPED)
        self._present[role] = Asked(size_of(network.network), *profile_inference(network.network, inputs))
        self.parameters[role] = num_parameters(network.network)
        return network

    def _note_parameters(self, role: Role) -> None:
        network = self.networks.build(role)
        if isinstance(network, PrivilegedNetwork):
            network = self.networks.build_plain(role, num_outputs=self.data.targets.width)
        self.parameters[role] = num_parameters(network)

    def _data_bytes(self, training: Training, inputs: Tensor, num_samples: int) -> float:
        """Of the training and validation samples as they would lie on a GPU, and of what the teacher said of them."""
        samples, reads = training.samples, self.networks.preprocessing(training.name)
        answers = 0.0
        if samples.teacher_outputs is not None:
            layers = num_samples * 4 * sum(prod(shape) for shape in self._shapes.get(training.name, {}).values())
            answers = num_samples * samples.teacher_outputs[0].nbytes + (layers if layers <= PRECOMPUTE_BYTES else 0)
        if reads.on_host:
            return answers
        ready = inputs.nbytes / len(inputs)
        if isinstance(reads, LanguagePreprocessing):
            stored = ready + inputs.shape[1]  # a byte of the mask for each token
        else:
            few = first(self.data.splits["train"].inputs, STEPPED)
            stored = reads.prepare(few).nbytes / len(few)
            if samples.views is None and reads.keeps_size and ready * num_samples <= PREPROCESS_ONCE_BYTES:
                stored = ready
        counts = self._rows.counts
        return answers + stored * num_samples * (1 + counts["validation"] / counts["train"])

    def _row_tokens(self) -> int:
        tokenizers = [*(each.tokenizer for each in self.spec.teachers.values()), self.spec.student.tokenizer]
        longest = [each.max_length for each in tokenizers if each is not None]
        return self.spec.dataset.row_tokens or max(longest, default=USUAL_ROW_TOKENS)


def miniature_spec(spec: JobSpec) -> JobSpec:
    """The spec of a job of one step on a batch of two."""
    # No CPU trains in fp16, which takes as much memory as bf16; auto is bf16 on all GPUs since Ampere.
    on_gpu: dict[str, Any] = {"fp16": "bf16", "auto": "bf16"} if spec.resources.gpus else {}

    def tried(training: TrainingSpec) -> TrainingSpec:
        changes = {
            "epochs": 1,
            "max_steps": None,
            "batch_size": STEPPED,
            "gradient_accumulation": 1,
            "early_stopping": None,
            "optimizer": training.optimizer.model_copy(update={"learning_rate": _NEXT_TO_NOTHING}),
            "precision": on_gpu.get(training.precision, training.precision),
        }
        return training.model_copy(update=changes)

    def teacher(each: TeacherSpec) -> TeacherSpec:
        return each.model_copy(update={"training": None if each.training is None else tried(each.training)})

    several = isinstance(spec.teacher, list)
    teachers = [teacher(each) for each in spec.teachers.values()]
    return spec.model_copy(update={"teacher": teachers if several else teachers[0], "training": tried(spec.training)})


@dataclass(frozen=True)
class _RecordingProvider(TeacherOutputProvider):
    """Keeps which of the teacher's layers were asked for, by the role that is taught."""

    shapes: dict[Role, Mapping[str, torch.Size]] = field(default_factory=dict)

    def precomputed(
        self, teachers: Teachers, samples: Samples, method: LayerMapping, *, role: Role
    ) -> tuple[Samples, TeacherFeatures]:
        self.shapes[role] = method.teacher_shapes
        return super().precomputed(teachers, samples, method, role=role)


class _Silent:
    """Passes on requests to stop, and no events: phases of a training are none of a check's."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def emit(self, event: Event) -> None:
        logger.debug("%s", event)

    def stop_request(self) -> StopRequest | None:
        return self._reporter.stop_request()
