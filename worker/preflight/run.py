"""The plan of a job in miniature: teachers, chain, student and control each take one step of their own method on two samples.

Invariant: steps do not influence each other. The learning rate is so small that a teacher's outputs are the same before and after
its step, and no job is refused for what only a long training would reveal.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from service.spec import JobSpec
from service.spec.preview import Preview
from service.spec.source import is_given
from worker.data import Data
from worker.data.adopted import unknown_classes, with_classes
from worker.data.data_warnings import with_warnings
from worker.data.disk.stored import Reading, StoredInputs
from worker.distributed.sync_batch_norm import check_no_layer_drop
from worker.errors import JobFault
from worker.evaluation.precision import choose_precision
from worker.job.early_checks import check_early
from worker.job.job_data import load_job_data
from worker.job.labels import without_control
from worker.job.networks import Networks
from worker.job.plan import PlannedTraining, plan_of
from worker.job.reading import read_all
from worker.job.reporting import PhaseReporter
from worker.job.roles import STUDENT, Role
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.job.trainings import TrainingBuilder
from worker.models import UnreadableNetwork
from worker.models.adapters import num_merged_parameters
from worker.preflight.estimate import GIB, num_ranks
from worker.preflight.findings import Findings
from worker.preflight.given_teachers import load_given
from worker.preflight.miniature import QuietReporter, miniature_spec
from worker.preflight.outcome import located_at
from worker.preflight.preview import preview_of
from worker.preflight.sampling import STEP_SAMPLES, first_texts, row_tokens_of, sample_data
from worker.preflight.shapes import build_too_large, measure_shapes
from worker.protocol import Assignment, PhaseStarted, Reporter
from worker.tasks import TASKS
from worker.trained import TrainedNetwork

logger = logging.getLogger(__name__)

MOST_BYTES = 8 * GIB
"""Limit of weights, gradients and optimizer states in memory: half a billion trained weights, which are built in some seconds.
Larger networks are profiled on the meta device."""
_READ_CHARACTERS = 5_000_000
"""Of each split, by each network: about five seconds of a tokenizer's work."""
_PREVIEWED_BYTES, _PREVIEWED_CLIPS = 2**26, 200
"""Of images, and of sound, to which preprocessings are fitted in a moment."""


class PreflightRun:
    """Tries one job. ``untrained`` are teachers that another job trains: here they are used with their initial weights."""

    def __init__(self, spec: JobSpec, assignment: Assignment, reporter: Reporter, *, untrained: frozenset[Role]) -> None:
        self._spec, self._assignment, self._reporter, self._untrained = spec, assignment, reporter, untrained
        self._device = torch.device(assignment.devices[0])
        self._phases = PhaseReporter(QuietReporter(reporter))
        self._most_bytes = MOST_BYTES if assignment.most_bytes is None else min(MOST_BYTES, assignment.most_bytes)

    def run(self) -> Findings:
        """Runs all steps in order. Raises what the job itself would end with, mostly as ``LocatedError``, and StopAsked."""
        if self._assignment.num_threads is not None:
            torch.set_num_threads(self._assignment.num_threads)
        with located_at("/dataset/source"):
            whole = self._load_whole()
            sampled = sample_data(whole, row_tokens=row_tokens_of(self._spec))
        self._spec = without_control(self._spec, whole)
        self._networks = self._over(
            sampled.step_data, miniature_spec(self._spec), fitted_on=sampled.fitting_data, most_samples=STEP_SAMPLES
        )
        self._findings = Findings(plan_of(self._spec).without(self._untrained), self._networks, sampled)
        self._findings.warnings += whole.warnings
        self._findings.is_complete = load_given(
            self._findings,
            whole,
            inputs=self._assignment.inputs,
            away=self._assignment.away,
            most_bytes=self._most_bytes,
        )
        self._findings.readable = self._readable()
        self._fit_preprocessings()
        self._read(whole)
        self._findings.preview = self._preview(whole)
        del whole
        if not self._findings.is_complete:
            self._try_student_alone()
        elif not self._is_too_large(self._networks.specs.plan.trained):
            self._try_all()
        return self._findings

    # The data and what reads them.

    def _load_whole(self) -> Data:
        """All data, with the classes of the given teachers where the data do not tell them.

        A target whose classes only a teacher knows that is out of reach, or still to be trained, is tried with two.
        """
        networks = self._over(
            load_job_data(self._spec, self._assignment.inputs, reading=Reading(self._assignment.folder)), self._spec
        )
        networks.data = with_warnings(networks.data, self._spec, task=TASKS[self._spec.task])
        try:
            networks.adopt_classes()
            return networks.settle_rows()
        except (JobFault, UnreadableNetwork):  # the teachers are loaded later, where a fault is theirs
            unknown = dict.fromkeys(unknown_classes(networks.data.targets), ("0", "1"))
            return with_classes(networks.data, unknown, relabel=TASKS[self._spec.task].relabel)

    def _over(self, data: Data, spec: JobSpec, *, fitted_on: Data | None = None, most_samples: int | None = None) -> Networks:
        """The networks of a spec over some data."""
        return Networks(
            spec,
            data,
            device=self._device,
            inputs=self._assignment.inputs,
            revisions=self._assignment.revisions,
            scratch=self._assignment.folder,
            fitted_on=fitted_on,
            most_samples=most_samples,
        )

    def _reads_alone(self) -> bool:
        """Whether the student has a preprocessing though a teacher could not be loaded."""
        if is_given(self._spec.student.source):
            return self._spec.student.source not in self._assignment.away
        return self._findings.task.info.input_kind != "text" or self._spec.student.tokenizer is not None

    def _readable(self) -> list[Role]:
        """The networks that have a preprocessing."""
        plan = self._networks.specs.plan
        if self._findings.is_complete:
            return [*plan.teachers, *plan.chain, STUDENT]
        away = self._assignment.away
        return [
            role
            for role in plan.trained
            if (self._networks.specs.source(role) not in away if role in plan.teachers else self._reads_alone())
        ]

    def _fit_preprocessings(self) -> None:
        """Fits the preprocessings of the networks that the job trains, on more samples than a step reads.

        A tokenizer that is trained on a part of the texts stands for one of the spec's whole vocabulary, which all texts fill.
        """
        networks = self._networks
        for role in filter(networks.specs.is_trained, self._findings.readable):
            spec = networks.specs.of(role)
            with located_at(f"/{networks.specs.path(role)}/tokenizer" if spec.tokenizer is not None else "/dataset/source"):
                reads = networks.preprocessing(role)
            if spec.tokenizer is not None and not self._findings.sampled.holds_all_texts:
                networks.replace_preprocessing(role, reads.with_vocabulary(spec.tokenizer.vocab_size))

    def _read(self, whole: Data) -> None:
        """Reads the texts of all splits, as far as a check has time for, by each network whose tokenizer is there."""
        if self._findings.task.info.input_kind != "text":
            return
        splits = []
        for split in whole.splits.values():
            some = first_texts(split, _READ_CHARACTERS)
            if len(some) < len(split):
                self._findings.note(f"Of the {split.name}, the first {len(some):,} of {len(split):,} texts were read.")
            # How many rows packed texts fill is known only by the job's own tokenizer.
            splits.append(some if self._findings.sampled.holds_all_texts else replace(some, is_packed=False))
        with located_at("/dataset/source"):
            self._findings.warnings += read_all(self._networks, splits, roles=self._findings.readable)

    def _preview(self, whole: Data) -> Preview | None:
        """What the networks read, if their preprocessings are fitted to all data in a moment."""
        if not self._findings.is_complete or self._untrained or not self._is_small(whole):
            return None
        networks = self._over(whole, self._spec)
        networks.share_pretrained(self._networks)
        return preview_of(networks, self._spec, STEP_SAMPLES, begin=lambda role: self._phases.check_stop())

    def _is_small(self, whole: Data) -> bool:
        inputs = whole.splits["train"].inputs
        if self._findings.task.info.input_kind == "text":
            return self._findings.sampled.holds_all_texts
        if isinstance(inputs, Tensor):
            return inputs.nbytes <= _PREVIEWED_BYTES
        return not isinstance(inputs, StoredInputs) and len(inputs) <= _PREVIEWED_CLIPS

    # The trainings.

    def _try_all(self) -> None:
        """Takes one step of each training of the plan."""
        spec, networks, findings = self._networks.spec, self._networks, self._findings
        for place, training in [
            ("training", spec.training),
            *((f"{place}/training", teacher.training) for place, teacher in spec.teachers.items()),
        ]:
            if training is not None:
                with located_at(f"/{place}/precision"):
                    choose_precision(training.precision, self._device)
        build = cache(networks.build)  # a large network takes seconds to initialise
        check_early(networks, build(STUDENT))
        ready = {role: findings.add_resident(role, networks.load_pretrained(role)) for role in networks.specs.plan.given}
        for role in self._untrained:
            ready[role] = findings.add_resident(role, networks.as_trained(role, build(role)))
        networks.data = findings.task.label_by_teacher(
            networks.data,
            lambda split: networks.together({role: ready[role] for role in networks.specs.plan.teachers}).outputs(split),
        )
        trainings = self._trainings(build)
        for planned in networks.specs.plan.without(self._untrained).own:
            self._try(planned, trainings, ready)
            for role in planned.roles:
                if role.kind in ("student", "control"):
                    findings.parameters[role] = num_merged_parameters(self._plain(role, build(role)))
                else:
                    ready[role] = findings.add_resident(role, networks.as_trained(role, build(role)))

    def _try_student_alone(self) -> None:
        """Trains the student on its labels, if it has a preprocessing of its own and labels."""
        if not self._reads_alone() or self._findings.task.labelled_by_teacher:
            return
        if not self._is_too_large((STUDENT,)):
            planned = replace(self._networks.specs.plan.training_of(STUDENT), taught_by=())
            build = cache(self._networks.build)
            self._try(planned, self._trainings(build), {})
            self._findings.parameters[STUDENT] = num_merged_parameters(self._plain(STUDENT, build(STUDENT)))

    def _is_too_large(self, roles: Sequence[Role]) -> bool:
        """Whether networks are too large to be built here; they are measured by their shapes then."""
        networks = build_too_large(self._findings, roles, most_bytes=self._most_bytes)
        if networks is not None:
            measure_shapes(self._findings, networks, check=self._check_distributed, check_stop=self._phases.check_stop)
        return networks is not None

    def _trainings(self, build: Callable[[Role], nn.Module]) -> TrainingBuilder:
        outputs = TeacherOutputProvider(self._networks, self._phases, cache=None)
        return TrainingBuilder(self._networks, build, self._phases, outputs)

    def _try(self, planned: PlannedTraining, trainings: TrainingBuilder, ready: Mapping[Role, TrainedNetwork]) -> None:
        """Takes one step of a training."""
        self._phases.check_stop()
        networks, role = self._networks, planned.role
        place, teacher = next(iter(networks.spec.teachers.items()))
        own_place = f"/{networks.specs.path(role)}/training" if role in networks.specs.teachers else "/training"
        if role in networks.specs.chain:
            own_place = "/method"
        teachers, built_at = None, own_place
        if planned.taught_by:
            teachers = networks.together({each: ready[each] for each in planned.taught_by})
            built_at = f"/{place}" if teacher.source == "train" else f"/{place}/source"
        with located_at(built_at):
            training = trainings.build(planned, teachers=teachers, num_steps=None if planned.steps_of is None else 1)
        with located_at(own_place):
            self._check_distributed(training.network)
            self._reporter.emit(PhaseStarted("checking", f"One step of the {role} on {len(training.samples)} samples"))
            self._findings.add_training(role, training)

    def _plain(self, role: Role, network: nn.Module) -> nn.Module:
        """A network without the parts that only training needs, for its size."""
        return network if self._networks.specs.is_plain(role) else self._networks.build_on_meta(role)

    def _check_distributed(self, network: nn.Module) -> None:
        """Raises JobFault for a network that several devices cannot train."""
        if num_ranks(self._spec) > 1:
            check_no_layer_drop(network)
