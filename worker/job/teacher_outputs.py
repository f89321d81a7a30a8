"""The outputs of a job's teachers on its training split: read from the cache if they are there, else computed and reported.

N samples, W outputs.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from worker.data.augment import EpochViews
from worker.data.epoch import num_epochs
from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import JobFault
from worker.job.networks import Networks
from worker.job.reporting import PhaseReporter
from worker.job.roles import Role
from worker.methods.layer_mapping import LayerMapping
from worker.teachers.cache import TeacherCache
from worker.teachers.cache_key import cache_key
from worker.teachers.compute import CacheSlot, PrecomputedOutputs, compute_teacher_outputs, compute_view_outputs
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork
from worker.training.criterion import TeacherOutputs


@dataclass(frozen=True)
class TeacherOutputProvider:
    """Computes, or reads from the cache, the outputs of one job's teachers on the training split."""

    networks: Networks
    phases: PhaseReporter
    cache: Path | None
    """The folder of the teacher cache; None for no cache."""
    group: ProcessGroup = SINGLE_PROCESS

    def of(self, teachers: Teachers, samples: Samples, mapping: LayerMapping, *, role: Role) -> TeacherOutputs:
        """The outputs on ``samples``, the training split of ``role``, and the first teacher's layers that the method reads."""
        if (views := samples.views) is None:
            return self._precomputed(teachers, samples, mapping, role=role)
        by_member = [self._per_view(name, each, samples, views, mapping, role=role) for name, each in teachers.members.items()]
        return teachers.combine_sources(by_member)

    def _precomputed(self, teachers: Teachers, samples: Samples, mapping: LayerMapping, *, role: Role) -> PrecomputedOutputs:
        computed = [self._compute(name, each, mapping, role=role) for name, each in teachers.members.items()]
        logits = teachers.combine([outputs.logits.to(samples.home) for outputs in computed])
        return replace(computed[0], logits=logits.to(samples.home))

    def _compute(self, name: str, teacher: TrainedNetwork, mapping: LayerMapping, *, role: Role) -> PrecomputedOutputs:
        samples = teacher.samples(self.networks.data.splits["train"])
        what = f"{len(samples):,} training samples for the {role}"

        def on_start(is_cached: bool) -> None:
            computing = f"Computing the {name}'s outputs on {what}, once for all epochs"
            reading = f"Reading the {name}'s outputs on {what} from the cache"
            self.phases.start("cache", reading if is_cached else computing)

        outputs = compute_teacher_outputs(
            teacher.network,
            samples,
            mapping.teacher_shapes,
            slot=self._cache_slot(teacher, mapping),
            on_start=on_start,
            after_batch=lambda done: self.phases.report("cache", done, total=len(samples)),
            group=self.group,
        )
        if not bool(outputs.logits.isfinite().all()):
            raise JobFault(
                "non_finite_loss",
                "The teacher's outputs on the training split hold NaN or infinity, before the student's first step.",
                hint="Choose another teacher, or train it again at a lower learning rate.",
                details={"phase": "cache", "step": 0},
            )
        return replace(outputs, logits=teacher.reorder(outputs.logits))

    def _per_view(
        self, name: str, teacher: TrainedNetwork, samples: Samples, views: EpochViews, mapping: LayerMapping, *, role: Role
    ) -> TeacherOutputs:
        """The outputs on each view of the training split: computed in each step, or beforehand if the views are few."""
        epochs = num_epochs(self.networks.training_spec(role), len(samples), samples.transfer)
        num_views = views.count and min(views.count, epochs)
        slot = self._cache_slot(teacher, mapping) if num_views else None

        def on_start(view: int, is_cached: bool) -> None:
            what = f"view {view + 1} of {num_views} of {len(samples):,} training samples for the {role}"
            computing = f"Computing the {name}'s outputs on {what}"
            reading = f"Reading the {name}'s outputs on {what} from the cache"
            self.phases.start("cache", reading if is_cached else computing)

        return compute_view_outputs(
            teacher.network,
            samples,
            mapping.teacher_shapes,
            preprocessing=teacher.preprocessing,
            reorder=teacher.reorder,
            num_views=num_views,
            slot=lambda view: slot and replace(slot, cache_key={**slot.cache_key, "view": views.told(view)}),
            on_start=on_start,
            after_batch=lambda done: self.phases.report("cache", done, total=len(samples)),
            group=self.group,
        )

    def _cache_slot(self, teacher: TrainedNetwork, mapping: LayerMapping) -> CacheSlot | None:
        """Where the cache has, or will have, a teacher's outputs on the training split; None without a cache."""
        if self.cache is None:
            return None
        inputs = self.networks.data.splits["train"].inputs
        layers, preprocessing = mapping.teacher_shapes, teacher.preprocessing
        key = cache_key(teacher.network, inputs, preprocessing, layers=layers, device=self.networks.device)
        return CacheSlot(TeacherCache(self.cache), key)
