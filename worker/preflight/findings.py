"""What a check finds of a job: its networks' sizes, one step of each training, and what of it could not be tried.

Sizes are extrapolated from samples of a step to the whole data. N samples of a training split.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from service.spec.preview import Preview
from service.spec.warning_message import WarningMessage
from worker.data.epoch import TransferRows
from worker.data.samples import PREPROCESS_ONCE_BYTES
from worker.data.tensors import Inputs, num_bytes, num_rows
from worker.evaluation.precision import choose_precision
from worker.job.networks import Networks
from worker.job.plan import JobPlan
from worker.job.roles import CONTROL, Role, by_name
from worker.models import num_parameters
from worker.models.adapters import adapter_of
from worker.models.loading import DTYPES, NumberFormat, dtype_of
from worker.preflight.estimate import InferenceProfile, Profile, RowsAtOnce, num_ranks, rows_at_once
from worker.preflight.profile import Chunk, StepProfile, profile_inference, profile_on_meta, profile_step, size_of
from worker.preflight.sampling import STEP_SAMPLES, SampledData, count_rows
from worker.tasks import TASKS, Task
from worker.trained import TrainedNetwork
from worker.training.kept_weights import num_kept_bytes
from worker.training.loop import Training
from worker.training.memory import MemorySavings


@dataclass
class Findings:
    """The findings of one check so far."""

    plan: JobPlan
    """The trainings of the whole job; it does not train what another job is to train."""
    networks: Networks
    """Over the samples of a step."""
    sampled: SampledData
    parameters: dict[Role, int] = field(default_factory=dict)
    profiles: dict[Role, Profile] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[WarningMessage] = field(default_factory=list)
    is_complete: bool = True
    """Whether every network was profiled."""
    readable: list[Role] = field(default_factory=list)
    """The networks whose preprocessing is known."""
    resident: dict[Role, InferenceProfile] = field(default_factory=dict)
    """The networks that are in memory beside one that is trained."""

    preview: Preview | None = None
    """What the networks read; None where that takes as long as in the job."""

    formats: dict[Role, NumberFormat] = field(default_factory=dict)
    """Those of the teachers that are too large to be loaded here."""

    @property
    def task(self) -> Task:
        return TASKS[self.networks.data.task]

    def note(self, text: str) -> None:
        """Notes what of the estimate is not measured; once."""
        if text not in self.notes:
            self.notes.append(text)

    def add_resident(self, role: Role, network: TrainedNetwork) -> TrainedNetwork:
        """Measures a network that others learn from, and returns it."""
        inputs = network.samples(self.networks.data.splits["train"]).inputs_from(0, STEP_SAMPLES)
        self.resident[role] = self.measure_inference(network.network, inputs)
        self.parameters[role] = num_parameters(network.network)
        return network

    def measure_inference(self, network: nn.Module, inputs: Inputs) -> InferenceProfile:
        """Measures a network in inference on inputs (B, …)."""
        per_sample = profile_inference(network, inputs, forward=self.task.infer)
        chunk = self._chunk(network)
        # Outputs of a chunk in float32, and the probabilities that a score makes of them.
        return InferenceProfile(size_of(network), per_sample, 0 if chunk is None else 2 * 4 * chunk.width * chunk.rows)

    def _chunk(self, network: nn.Module) -> Chunk | None:
        found = self.task.chunk(network)
        return None if found is None else Chunk(*found)

    def _rows(self, role: Role) -> RowsAtOnce:
        spec = self.plan.training_of(role).spec
        return rows_at_once(spec, self.num_samples(role) or 0, num_ranks=num_ranks(self.networks.spec))

    def add_training(self, role: Role, training: Training) -> None:
        """Takes one step of a training and measures it."""
        rows = self._rows(role)
        step = profile_step(training, batch=rows.batch, whole=rows.whole, chunk=self._chunk(training.network))
        given = [self.networks.load_pretrained(each).network for each in self.networks.specs.plan.given if each in self.resident]
        shared = size_of(training.network) - size_of(training.network, beside=given)
        step = replace(step, weights=step.weights - shared)
        inputs = training.samples.inputs_from(0, STEP_SAMPLES)
        network = self.measure_inference(training.network, inputs)
        self._add(
            role, step, network, inputs, kept=num_kept_bytes(training.network), data=self._data_bytes(role, training, inputs)
        )

    def add_shapes(self, role: Role, network: nn.Module, inputs: Inputs) -> None:
        """Measures a step on labels alone of a network of fake tensors."""
        spec = self.networks.specs.training(role)
        precision = choose_precision(spec.precision, self.networks.device)
        rows = self._rows(role)
        MemorySavings(network, spec)  # which has it compute twice where it is to
        step = profile_on_meta(
            network,
            inputs,
            spec.optimizer,
            precision,
            forward=self.task.step_outputs,
            batch=rows.batch,
            whole=rows.whole,
            chunk=self._chunk(network),
        )
        step = replace(step, weights=step.weights - self._shared_by_shape(role, network))
        runs_each_step = bool(self.plan.training_of(role).taught_by) and self.task.teacher_runs_each_step
        kept = num_kept_bytes(network)
        self._add(role, step, self.measure_inference(network, inputs), inputs, kept=kept, runs_each_step=runs_each_step)

    def _shared_by_shape(self, role: Role, network: nn.Module) -> int:
        """Bytes of an adapter's base that a teacher which is not loaded here has as well: one of its source and format."""
        if adapter_of(network) is None:
            return 0
        ours = self.networks.specs.source(role), dtype_of(network)
        theirs = [(self.networks.specs.source(each), dtype) for each, name in self.formats.items() for dtype in _dtypes(name)]
        if ours not in theirs:
            return 0
        return sum(weight.nbytes for weight in network.parameters() if not weight.requires_grad)

    def _add(
        self,
        role: Role,
        step: StepProfile,
        network: InferenceProfile,
        inputs: Inputs,
        *,
        kept: int,
        data: float = 0.0,
        runs_each_step: bool = False,
    ) -> None:
        training = self.plan.training_of(role)
        self.profiles[role] = Profile(
            training.spec,
            step,
            network,
            by_name(self.resident),
            runs_each_step=runs_each_step,
            kept=kept,
            data=data,
            num_samples=(num_samples := self.num_samples(role) or 0),
            evaluation_batch=min(self.task.evaluation_batch(inputs), math.ceil(num_samples * self._evaluated_share())),
        )

    def _evaluated_share(self) -> float:
        """Size of the largest split that is evaluated, against the training split."""
        counts = self.sampled.counts
        return max(counts[name] for name in counts if name != "train") / max(1, counts["train"])

    def num_samples(self, role: Role) -> int | None:
        """Size of the training split as that network reads it; None if its preprocessing is unknown."""
        if not self.sampled.step_data.splits["train"].is_packed:
            transfer = self.transfer(role)
            return self.sampled.counts["train"] + (0 if transfer is None else transfer.count)
        if role.base not in self.readable and role != CONTROL:
            return None
        count, is_exact = count_rows(self.networks.preprocessing(role), self.sampled)
        if not is_exact:
            self.note("Rows of tokens, and so the steps, are estimated from the first million characters.")
        return count

    def transfer(self, role: Role) -> TransferRows | None:
        """The transfer rows among that network's samples."""
        return self.sampled.transfer if self.networks.specs.reads_transfer(role) else None

    def _data_bytes(self, role: Role, training: Training, inputs: Inputs) -> float:
        """Bytes on a GPU of the training and validation samples and of the teacher's outputs on them."""
        num_samples = self.num_samples(role) or 0
        samples, reads = training.samples, self.networks.preprocessing(role)
        answers = float(training.criterion.stored_bytes(num_samples))
        if reads.on_host:
            return answers
        ready = num_bytes(inputs) / num_rows(inputs)
        if samples.views is None and reads.keeps_size and ready * num_samples <= PREPROCESS_ONCE_BYTES:
            stored = ready
        else:
            made = reads.read(self.networks.data.splits["train"])
            stored = (num_bytes(made.inputs) + made.labels.nbytes) / num_rows(made.inputs)
        counts = self.sampled.counts
        return answers + stored * num_samples * (1 + counts["validation"] / counts["train"])


def _dtypes(name: NumberFormat) -> list[torch.dtype]:
    return [dtype for other, dtype in DTYPES.items() if other == name]
