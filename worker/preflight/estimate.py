"""Memory and steps of the whole job, extrapolated from the profile of one step. N samples of the training split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from service.spec import JobSpec
from service.spec.estimate import MemoryPart
from service.spec.training import TrainingSpec
from worker.data.epoch import TransferRows, count_steps
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.job.plan import JobPlan
from worker.job.roles import Role
from worker.preflight.profile import StepProfile

GIB = 2**30
CONTEXT_BYTES = 9 * GIB // 10
"""What CUDA takes beside tensors: its context and cuBLAS's workspace, 0.70 GiB on an H100, and up to 0.2 GiB for cuDNN's."""

_UNUSED = 1.1
"""What PyTorch's allocator holds on a GPU, over what is used of it."""

PROCESS_BYTES = 192 * 2**20
"""What a trainer on a CPU takes beside tensors: packages that a format or an adapter imports (8 to 60 MiB), what torch's kernels
keep, the texts, tokenizers, and holes between tensors. What it shares with the process that it is forked from is left out."""


@dataclass(frozen=True)
class InferenceProfile:
    """A network in inference. Sizes are in bytes."""

    weights: int
    per_sample: float
    """Peak of a forward pass, for each sample of its batch."""
    fixed: int
    """Peak of a forward pass that does not depend on the batch."""

    def peak_bytes(self, batch: int) -> float:
        """Peak of a forward pass on ``batch`` samples."""
        return self.per_sample * batch + self.fixed


@dataclass(frozen=True)
class Profile:
    """One training, profiled. Sizes are in bytes."""

    spec: TrainingSpec
    step: StepProfile
    network: InferenceProfile
    """The trained network in evaluation."""
    resident: Mapping[str, InferenceProfile]
    """By role, the other networks on the device."""
    runs_each_step: bool
    """Whether the resident networks run on each batch, and did not in the step."""
    kept: int
    """A copy of what the training changes, as its best weights are kept on the CPU."""
    data: float
    """Samples and teacher outputs, where they are kept on a GPU that has room for them."""
    num_samples: int
    evaluation_batch: int = EVALUATION_BATCH


def memory_bytes(profile: Profile, *, num_ranks: int, on_gpu: bool = True) -> float:
    """Peak memory of one device, or of one process of a training on a CPU."""
    return sum(memory_parts(profile, num_ranks=num_ranks, on_gpu=on_gpu).values())


def memory_parts(profile: Profile, *, num_ranks: int, on_gpu: bool = True) -> dict[MemoryPart, float]:
    """Peak memory of one device, or of one process of a training on a CPU, in bytes by what takes it.

    Data are kept on a GPU if they fit into half of its free memory. Data that are larger than everything else together can stay
    on the host, so they do not count.
    """
    step = profile.step
    at_once = rows_at_once(profile.spec, profile.num_samples, num_ranks=num_ranks)
    batch, whole = at_once.batch / step.num_samples, at_once.whole / step.num_samples
    live = step.passes.bytes_of(batch, whole=whole)
    if profile.runs_each_step:
        live += max((each.peak_bytes(at_once.batch) for each in profile.resident.values()), default=0.0)
    if num_ranks > 1:
        live += step.exchanged * whole
    kept = step.gradients if num_ranks > 1 else 0  # DDP's gradient buckets are never freed
    if kept or at_once.whole > at_once.batch * num_ranks or profile.spec.gradient_accumulation > 1:
        live += step.gradients - step.passes.gradients  # those of the passes before
    inference = kept + max(each.peak_bytes(profile.evaluation_batch) for each in (profile.network, *profile.resident.values()))
    # The last weights are kept beside the best ones, before a last evaluation.
    copies = 0 if on_gpu else profile.kept
    most = max(live, step.gradients + step.update, inference + copies)
    gradients = min(step.gradients, most) if most > inference + copies else kept
    parts: dict[MemoryPart, float] = {
        "weights": step.weights + step.per_dataset_sample * profile.num_samples + copies,
        "teachers": sum(each.weights for each in profile.resident.values()),
        "optimizer": step.optimizer,
        "gradients": gradients,
        "activations": most - gradients,
    }
    if not on_gpu:
        parts["device"] = PROCESS_BYTES
    needed = sum(parts.values())
    if on_gpu:
        parts["device"] = needed * (_UNUSED - 1) + CONTEXT_BYTES
        needed += parts["device"]
    if profile.data <= needed:
        parts["data"] = profile.data
    return {name: size for name, size in parts.items() if size}


@dataclass(frozen=True)
class RowsAtOnce:
    """Samples of a training on one device."""

    batch: int
    """Those that go through the network at once."""
    whole: int
    """Those of a batch, on all devices."""


def rows_at_once(spec: TrainingSpec, num_samples: int, *, num_ranks: int) -> RowsAtOnce:
    """The samples of a training on one device, of so many in all; ``micro_batch: auto`` makes do with one."""
    whole = max(1, min(spec.batch_size, num_samples))
    match spec.micro_batch:
        case "auto":
            at_once = num_ranks
        case None:
            at_once = whole
        case size:
            at_once = size
    return RowsAtOnce(math.ceil(min(at_once, whole) / num_ranks), whole)


def num_ranks(spec: JobSpec) -> int:
    """Ranks of the data-parallel training."""
    return spec.resources.gpus or spec.resources.cpu_slots


def steps_by_phase(
    plan: JobPlan, num_samples: Mapping[Role, int], transfer: Mapping[Role, TransferRows | None]
) -> dict[str, int]:
    """Upper bounds of the optimizer steps of a plan's trainings, by part of the job.

    ``num_samples`` and ``transfer`` are of the training split as each network reads it that is trained before the control.
    """
    steps: dict[Role, int] = {}
    for training in plan.trainings:
        like = (training.steps_of or training.role).base  # seed replicates have the same samples
        if like not in steps:
            steps[like] = count_steps(training.spec, num_samples[like], transfer.get(like))
        steps |= dict.fromkeys(training.roles, steps[like])
    parts: dict[str, int] = {}
    for role, count in steps.items():
        parts[role.part] = parts.get(role.part, 0) + count
    return parts
