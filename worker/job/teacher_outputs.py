"""The outputs of a job's teachers on its training split: read from the cache if they are there, else computed and reported.

N samples, W outputs.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

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
from worker.teachers.compute import (
    PRECOMPUTE_BYTES,
    CacheSlot,
    PrecomputedOutputs,
    StepOutputs,
    compute_teacher_outputs,
    compute_view_outputs,
)
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork
from worker.training.criterion import TeacherOutputs

_OUTPUTS_FOLDER = "teacher_outputs"
"""Of a job without a cache, in its scratch folder."""
_LOOKED_AT = 65_536
"""Samples whose outputs are looked at together."""


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
        if (views := samples.views) is not None:
            per_view = [self._per_view(name, each, samples, views, mapping, role=role) for name, each in teachers.members.items()]
            return teachers.combine_sources(per_view)
        if not self._are_on_disk(samples, mapping):
            return self._precomputed(teachers, samples, mapping, role=role)
        if samples.is_read_ahead and self.cache is None:
            # Each step has the very samples: nothing of all of them is to be kept anywhere.
            return teachers.combine_sources([_per_step(each, samples, mapping) for each in teachers.members.values()])
        by_member = [self._compute(name, each, mapping, role=role) for name, each in teachers.members.items()]
        return teachers.combine_sources(by_member)

    def _are_on_disk(self, samples: Samples, mapping: LayerMapping) -> bool:
        """Whether outputs on samples that are on disk are too large to be held in memory."""
        parts = 1 if samples.labels.dim() == 1 or samples.labels.is_floating_point() else samples.labels.shape[1]
        values = parts * self.networks.data.targets.width + sum(shape.numel() for shape in mapping.teacher_shapes.values())
        return self.networks.data.read.source == "shards" and 4 * len(samples) * values > PRECOMPUTE_BYTES

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
            slot=self._cache_slot(teacher, samples, mapping),
            on_start=on_start,
            after_batch=lambda done: self.phases.report("cache", done, total=len(samples)),
            group=self.group,
        )
        if not all(bool(part.isfinite().all()) for part in torch.split(outputs.logits, _LOOKED_AT)):
            raise JobFault(
                "non_finite_loss",
                "The teacher's outputs on the training split hold NaN or infinity, before the student's first step.",
                hint="Choose another teacher, or train it again at a lower learning rate.",
                details={"phase": "cache", "step": 0},
            )
        if self._are_on_disk(samples, mapping):
            return replace(outputs, reorder=teacher.reorder)
        return replace(outputs, logits=teacher.reorder(outputs.logits))

    def _per_view(
        self, name: str, teacher: TrainedNetwork, samples: Samples, views: EpochViews, mapping: LayerMapping, *, role: Role
    ) -> TeacherOutputs:
        """The outputs on each view of the training split: computed in each step, or beforehand if the views are few."""
        epochs = num_epochs(self.networks.specs.training(role), len(samples), samples.transfer)
        num_views = views.count and min(views.count, epochs)
        slot = self._cache_slot(teacher, samples, mapping) if num_views else None

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

    def _cache_slot(self, teacher: TrainedNetwork, samples: Samples, mapping: LayerMapping) -> CacheSlot | None:
        """Where the cache has, or will have, a teacher's outputs on the training split; None without a cache."""
        cache = self.cache
        if cache is None and self._are_on_disk(samples, mapping):
            cache = self.networks.scratch / _OUTPUTS_FOLDER
        if cache is None:
            return None
        inputs = self.networks.data.splits["train"].inputs
        layers, preprocessing = mapping.teacher_shapes, teacher.preprocessing
        key = cache_key(teacher.network, inputs, preprocessing, layers=layers, device=self.networks.device)
        return CacheSlot(TeacherCache(cache), key)


def _per_step(teacher: TrainedNetwork, samples: Samples, mapping: LayerMapping) -> TeacherOutputs:
    return StepOutputs(
        teacher.network, samples, mapping.teacher_shapes, preprocessing=teacher.preprocessing, reorder=teacher.reorder
    )
