"""Estimate of a job's cost, measured and computed by its preflight before the job waits for a GPU."""

from typing import Literal

from service.spec.strict import StrictModel
from service.spec.warning_message import WarningMessage

MemoryPart = Literal["weights", "teachers", "optimizer", "gradients", "activations", "data", "device"]


class Estimate(StrictModel):
    """Figures of a job that was run on a CPU for one step: counted where possible, else estimated from a batch of two samples."""

    parameters: dict[str, int]
    """Weights of each network as it comes out, by its role: ``student``, ``teacher`` (``teacher-1`` … of several), those between
    them (``assistant-1``, ``generation-1`` …), and ``control`` where one is trained."""
    flops: dict[str, int]
    """Floating-point operations of one training sample, forward and backward, by the role that is trained: of matrix products,
    convolutions and attention, a multiplication and an addition counted as two. The teacher's are among the student's where it is
    asked in each step; of ``deep-mutual`` both networks' are the student's. Of texts, those of the longest."""
    memory_gib: float | None
    """Most memory of one device, or CPU slot, that the job is expected to take at once, in GiB: the greatest of
    ``memory_by_training_gib``. null where a network could not be looked at."""
    memory_by_training_gib: dict[str, float]
    """The same by the role that is trained: weights, gradients, optimizer state, what is saved for the backward pass, the
    networks that teach, the data where they would be put there, and what CUDA itself takes. On CPUs, that of one process."""
    memory_parts_gib: dict[str, dict[MemoryPart, float]] = {}
    """The same by what takes it. ``weights`` are those of the network that is trained, in its number format, without what it
    shares with a teacher, and on a CPU its best ones as well; ``teachers`` those of the networks beside it, in theirs;
    ``optimizer`` and ``gradients`` are of trained weights; ``activations`` of a micro batch, or of an evaluation or an update if
    that takes more; ``data``; ``device``: what CUDA takes beside tensors, or on a CPU the trainer's process."""
    steps: dict[str, int]
    """Optimizer steps by phase, at most, where early stopping may end it sooner: ``teacher`` (all networks before the student),
    ``student``, ``control``, and ``repeats`` from other seeds, students and controls together."""
    num_samples: int | None
    """Samples that the student is trained on, of a packed causal language model rows of tokens; null where its tokenizer could
    not be looked at."""
    notes: list[str]
    """What could not be run or counted as it is, in sentences."""
    warnings: list[WarningMessage] = []
    """What of the data takes no part in the job, and what makes its scores worth less."""
    preview_id: str | None = None
    """The preview that the check made of two samples, kept for a day; null where reading them takes as long as in the job."""
    seconds: float
    """How long the check took."""
