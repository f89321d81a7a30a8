"""From what one step took to what the whole job will: memory, and steps. N samples of the training split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from service.spec import JobSpec
from service.spec.methods import DeepMutual
from service.spec.training import TrainingSpec
from worker.data.samples import count_steps
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.job.roles import seed_replicates
from worker.preflight.profile import StepProfile

GIB = 2**30
CONTEXT_BYTES = 9 * GIB // 10
"""What CUDA takes beside tensors: its context and cuBLAS's workspace, 0.70 GiB on an H100, and up to 0.2 GiB for cuDNN's."""

_UNUSED = 1.1
"""What PyTorch's allocator holds on a GPU, over what is used of it."""


@dataclass(frozen=True)
class Asked:
    """A network that answers without being trained. Sizes are in bytes."""

    weights: int
    by_sample: float
    """Most that a forward pass holds at once, for each sample of its batch."""
    beside: int
    """What that takes whatever the batch."""

    def answering(self, batch: int) -> float:
        """A batch of so many."""
        return self.by_sample * batch + self.beside


@dataclass(frozen=True)
class Profile:
    """One training as it was tried. Sizes are in bytes."""

    spec: TrainingSpec
    step: StepProfile
    network: Asked
    """Itself, when it is evaluated."""
    present: Mapping[str, Asked]
    """By role, networks that are on the device beside it."""
    asked_each_step: bool
    """Whether they are asked about each batch."""
    data: float
    """What would lie on a GPU that has place for it: samples, and what the teacher said of them."""
    num_samples: int
    evaluated_at_once: int = EVALUATION_BATCH


def memory_bytes(tried: Profile, *, num_ranks: int, on_gpu: bool = True) -> float:
    """Most memory of one device, or of one process where they train on a CPU.

    Data go to a GPU when they fit into half of its free memory; where they are more than all else together there is a GPU that
    holds all else and leaves them on the host, so they add nothing to what is needed.
    """
    step = tried.step
    whole = min(tried.spec.batch_size, tried.num_samples)
    batch = math.ceil(whole / num_ranks)
    present = sum(each.weights for each in tried.present.values())
    held = step.weights + step.by_sample_of_the_split * tried.num_samples + step.optimizer + present
    answers = max((each.answering(batch) for each in tried.present.values()), default=0.0) if tried.asked_each_step else 0.0
    kept = step.gradients if num_ranks > 1 else 0  # where ranks exchange them their place is never given back
    saved = (step.saved - step.saved_by_loss) * batch + step.saved_by_loss * whole
    if num_ranks > 1:
        saved += step.exchanged * whole
    training = held + step.gradients + step.saved_weights + saved / step.num_samples + answers
    at_once = min(tried.evaluated_at_once, tried.num_samples)
    asked = [tried.network, *tried.present.values()]
    needed = max(training, held + kept + max(each.answering(at_once) for each in asked))
    if on_gpu:
        needed = needed * _UNUSED + CONTEXT_BYTES
    return needed + tried.data if tried.data <= needed else needed


def num_ranks(spec: JobSpec) -> int:
    """Processes that train side by side, each on its share of a batch."""
    return spec.resources.gpus or spec.resources.cpu_slots


def steps_by_phase(spec: JobSpec, trainings: Mapping[str, TrainingSpec], num_samples: Mapping[str, int]) -> dict[str, int]:
    """Optimizer steps by phase, at most. ``trainings`` are those before the control, by role; each has so many samples."""
    steps = {role: count_steps(training, num_samples[role]) for role, training in trainings.items()}
    student = steps.pop("student")
    phases = {"teacher": sum(steps.values()) if not isinstance(spec.method, DeepMutual) else student, "student": student}
    if spec.evaluation.control:
        phases["control"] = student
    if repeats := seed_replicates(spec):
        phases["repeats"] = student * sum(map(len, repeats))
    return {phase: count for phase, count in phases.items() if count}
