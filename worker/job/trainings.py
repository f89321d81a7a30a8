"""The trainings of a plan, ready for their first step: each with its network, its samples, its criterion and its validation.

Invariant: a network is built once for its training. Its initial weights, and then the criterion's, are the first numbers drawn
from its seed: what is computed between them, such as the teachers' outputs, leaves the generators as they were.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.distributed.rng import preserved_generators
from worker.job.error_mapping import as_training_fault
from worker.job.networks import Networks
from worker.job.plan import PlannedTraining
from worker.job.reporting import PhaseReporter
from worker.job.roles import Role
from worker.job.teacher_outputs import TeacherOutputProvider
from worker.targets import Targets
from worker.tasks import TASKS, Distillation, Task
from worker.teachers.ensemble import Teachers
from worker.training.criterion import BuildCriterion
from worker.training.label_loss import targets_to_learn
from worker.training.loop import Training
from worker.training.mutual import MutualTraining
from worker.training.validation import ValidationTeacher


@dataclass(frozen=True)
class TrainingBuilder:
    """Builds the trainings of one job."""

    networks: Networks
    build_network: Callable[[Role], nn.Module]
    phases: PhaseReporter
    teacher_outputs: TeacherOutputProvider
    group: ProcessGroup = SINGLE_PROCESS
    _ahead: dict[Role, tuple[nn.Module, Tensor]] = field(default_factory=dict, init=False)
    """Networks that wait for their training, each with the generator's state behind its first weights."""

    def build_ahead(self, planned: PlannedTraining) -> nn.Module:
        """Builds the network of a training before it, for checks that leave its weights as they are."""
        self.group.seed(planned.spec.seed)
        network = self.build_network(planned.role)
        self._ahead[planned.role] = network, torch.get_rng_state()
        return network

    def build(self, planned: PlannedTraining, *, teachers: Teachers | None = None, num_steps: int | None = None) -> Training:
        """Builds a training and its network, freshly initialised.

        ``teachers`` are those of the plan, for a network that is taught; ``num_steps`` trains for exactly that many steps.

        Raises:
            JobFault: the network does not fit the data, or the method does not fit the networks.
            StopAsked: a stop was requested while the teachers' outputs were computed.
        """
        samples = self.networks.samples(planned.role, "train")
        # Student and control have the same seed, hence the same initial weights and the same batches.
        self.group.seed(planned.spec.seed)
        if planned.role in self._ahead:
            network, state = self._ahead.pop(planned.role)
            network.train()
            torch.set_rng_state(state)
        else:
            network = self.build_network(planned.role)
        if planned.peer is not None:
            return self._build_peers(planned, planned.peer, network, samples)
        validation_teacher: ValidationTeacher | None = None
        targets = self._targets(planned, samples)
        build_criterion: BuildCriterion = partial(self._task.label_criterion, targets=targets)
        if teachers is not None:
            if self.networks.spec.student.source == "teacher-layers":
                self.networks.copy_teacher_layers(network, teachers.first.network)
            network.to(self.networks.device)
            with preserved_generators(self.networks.device):
                validation_teacher = self._validation_teacher(teachers)
                build_criterion = self._task.student_criterion(self._distillation(planned, network, samples, teachers, targets))
        parts = self._parts(planned, planned.role, network, samples, build_criterion, validation_teacher)
        with as_training_fault(str(planned.role), self.networks.specs.training_path(planned.role)):
            return Training(**parts, num_steps=num_steps)

    def _build_peers(self, planned: PlannedTraining, peer: Role, network: nn.Module, samples: Samples) -> MutualTraining:
        """Builds the training of two networks that learn from each other."""
        other = self.build_network(peer)
        mapping = self.networks.map_layers(network, other, self.networks.preprocessing(peer))
        targets = self._targets(planned, samples)
        build_criterion = partial(self._task.peer_criterion, targets=targets, mapping=mapping)
        parts = self._parts(planned, planned.role, network, samples, build_criterion)
        theirs = self._parts(planned, peer, other, self.networks.samples(peer, "train"), build_criterion)
        with as_training_fault(str(peer), self.networks.specs.training_path(peer)):
            peers = Training(**theirs)
        with as_training_fault(str(planned.role), self.networks.specs.training_path(planned.role)):
            return MutualTraining(**parts, peer=peers)

    def _parts(
        self,
        planned: PlannedTraining,
        role: Role,
        network: nn.Module,
        samples: Samples,
        build_criterion: BuildCriterion,
        validation_teacher: ValidationTeacher | None = None,
    ) -> dict[str, Any]:
        """The arguments of a network's :class:`Training`."""
        network = self.group.convert_sync_batchnorm(network.to(self.networks.device))
        validation = self.networks.samples(role, "validation")
        return {
            "network": network,
            "phase": role.phase,
            "name": str(role),
            "samples": samples,
            "validation": self._task.validation(validation, self.networks.data.targets, teacher=validation_teacher),
            "spec": planned.spec,
            "criterion": build_criterion(network, samples),
            "group": self.group,
        }

    def _validation_teacher(self, teachers: Teachers) -> ValidationTeacher | None:
        """What chooses a student's best weights where no sample of the validation split has a label; None where one has."""
        split = self.networks.data.splits["validation"]
        if self._task.can_score(split.labels, self.networks.data.targets):
            return None
        return ValidationTeacher(teachers.outputs(split), teachers.teaches)

    def _targets(self, planned: PlannedTraining, samples: Samples) -> Targets:
        """The targets as the training's label loss reads them."""
        place = self.networks.specs.training_path(planned.role)
        return targets_to_learn(self.networks.data.targets, planned.spec, samples.labels, weights=samples.weights, place=place)

    def _distillation(
        self, planned: PlannedTraining, network: nn.Module, samples: Samples, teachers: Teachers, targets: Targets
    ) -> Distillation:
        """What the task builds the criterion of a network with teachers from."""
        teacher, role = teachers.first, planned.role

        def report(message: str) -> Callable[[int], None]:
            self.phases.start("cache", message)
            return partial(self.phases.report, "cache", total=len(samples))

        return Distillation(
            self.networks.spec,
            str(role),
            planned.spec.seed,
            targets,
            samples,
            teacher.network,
            self.networks.preprocessing(role),
            teacher.preprocessing,
            teacher_samples=lambda: teacher.samples(self.networks.data.splits["train"]),
            map_layers=lambda: self.networks.map_layers(network, teacher.network, teacher.preprocessing),
            teacher_outputs=lambda mapping: self.teacher_outputs.of(teachers, samples, mapping, role=role),
            report=report,
            group=self.group,
        )

    @property
    def _task(self) -> Task:
        return TASKS[self.networks.data.task]
