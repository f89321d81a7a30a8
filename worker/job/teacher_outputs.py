"""What a job asks its teachers about its training split: from the cache where it is there, else asked and told.

N samples, W outputs.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from worker.data.augment import EpochViews
from worker.data.samples import Samples, num_epochs
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import JobFault
from worker.job.networks import Networks
from worker.job.reporting import PhaseReporter
from worker.job.roles import Role
from worker.methods.layer_mapping import LayerMapping
from worker.teachers.cache import TeacherCache
from worker.teachers.cache_key import cache_key
from worker.teachers.compute import CacheSlot, compute_teacher_outputs, compute_view_outputs
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork
from worker.training.objective import TeacherFeatures, TeacherOutputs


@dataclass(frozen=True)
class TeacherOutputProvider:
    """Asks the teachers of one job."""

    networks: Networks
    phases: PhaseReporter
    cache: Path | None
    """The folder of what teachers said before; None for none."""
    group: ProcessGroup = SINGLE_PROCESS

    def precomputed(
        self, teachers: Teachers, samples: Samples, method: LayerMapping, *, role: Role
    ) -> tuple[Samples, TeacherFeatures]:
        """The training split with what the teachers say to it, and the features of the one that is looked into."""
        answered = [self._ask(name, each, method, role=role) for name, each in teachers.members.items()]
        return samples.with_teacher(teachers.together([answers.to(samples.home) for answers, _ in answered])), answered[0][1]

    def _ask(self, name: Role, teacher: TrainedNetwork, method: LayerMapping, *, role: Role) -> tuple[Tensor, TeacherFeatures]:
        samples = teacher.samples(self.networks.data.splits["train"])
        what = f"{len(samples):,} training samples for the {role}"

        def begin(is_kept: bool) -> None:
            asking = f"Asking the {name} about {what}, once for all epochs"
            self.phases.start("cache", f"What the {name} says of {what} is read from the cache" if is_kept else asking)

        answers, features = compute_teacher_outputs(
            teacher.network,
            samples,
            method.teacher_shapes,
            kept=self._kept(teacher, method),
            begin=begin,
            after_batch=lambda done: self.phases.report("cache", done, total=len(samples)),
            group=self.group,
        )
        if not bool(answers.isfinite().all()):
            raise JobFault(
                "non_finite_loss",
                "The teacher's outputs on the training split hold NaN or infinity, before the student's first step.",
                hint="Choose another teacher, or train it again at a lower learning rate.",
                details={"phase": "cache", "step": 0},
            )
        return teacher.reorder(answers), features

    def per_view(
        self, name: Role, teacher: TrainedNetwork, samples: Samples, views: EpochViews, method: LayerMapping, *, role: Role
    ) -> TeacherOutputs:
        """What a teacher says to each view of the training split: asked in each step, or beforehand where they are few."""
        num_views = views.count and min(views.count, num_epochs(self.networks.training_spec(role), len(samples)))
        kept = self._kept(teacher, method) if num_views else None

        def begin(view: int, is_kept: bool) -> None:
            what = f"view {view + 1} of {num_views} of {len(samples):,} training samples for the {role}"
            asking = f"Asking the {name} about {what}"
            self.phases.start("cache", f"What the {name} says of {what} is read from the cache" if is_kept else asking)

        return compute_view_outputs(
            teacher.network,
            samples,
            method.teacher_shapes,
            preprocessing=teacher.preprocessing,
            reorder=teacher.reorder,
            num_views=num_views,
            kept=lambda view: kept and replace(kept, cache_key={**kept.cache_key, "view": views.told(view)}),
            begin=begin,
            after_batch=lambda done: self.phases.report("cache", done, total=len(samples)),
            group=self.group,
        )

    def _kept(self, teacher: TrainedNetwork, method: LayerMapping) -> CacheSlot | None:
        """Where the cache has, or will have, what a teacher says to the training split; None without a cache."""
        if self.cache is None:
            return None
        inputs = self.networks.data.splits["train"].inputs
        layers, reads = method.teacher_shapes, teacher.preprocessing
        asked = cache_key(teacher.network, inputs, reads, layers=layers, device=self.networks.device)
        return CacheSlot(TeacherCache(self.cache), asked)
