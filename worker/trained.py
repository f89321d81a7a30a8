"""Trained networks of a job, whether the job trained or loaded them. N samples, W outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.model_facts import read_licence
from service.spec.architectures import Architecture
from service.spec.cards.network import DtypeCard, StartCard
from service.spec.class_names import OutputMap, UnknownOutputs, map_outputs
from service.spec.problem_type import MULTI_LABEL, NUMBERS, ONE_LABEL, OUTPUTS, ProblemType, how_to_agree
from service.spec.report import BiasCard
from service.spec.tasks import TaskName
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, Split
from worker.data.errors import UnfitInputs
from worker.data.samples import Samples
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult
from worker.models.adapters import adapter_of, merged
from worker.models.loading import FLOAT32, Loading, dtype_of, held_bytes
from worker.models.reported import read_reported
from worker.targets import Targets
from worker.tasks import TASKS, load_network
from worker.training.result import TrainingFigures, TrainingResult

_HINT = "Change the dataset or the teacher's preprocessor_config.json as it says, or choose another teacher."


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in ``eval()`` on its device, with its preprocessing and the order of its outputs."""

    network: nn.Module
    device: torch.device
    preprocessing: Preprocessing
    task: TaskName
    source: str
    """Its source, as in the spec."""
    architecture: dict[str, Any] | None
    figures: TrainingFigures | None = None
    """The figures of its training; None if this job did not train it."""
    last_test: EvaluationResult | None = None
    """The scores of its last weights, rather than its best, on the test split."""
    output_order: list[int] | None = None
    """The index of each of the job's outputs among the network's, -1 for one that it lacks; None if the order is the same."""
    converted_to: Targets | None = None
    """The job's targets, whose scale its numbers are brought to; None for a network that was trained on that scale, or that
    predicts no number. A network that was loaded predicts numbers in the data's units."""
    teaches: tuple[str, ...] | None = None
    """The targets that it teaches; None for all."""
    num_bytes: int | None = None
    """Size of the weights on disk, for a network that was loaded."""
    adapted: nn.Module | None = None
    """The network with its adapter apart, of which ``network`` is the merged form; None for one that was trained whole."""
    bias: BiasCard | None = None
    """How the biases of its outputs were set after its training; None if they are as they were learned."""
    dtype: DtypeCard | None = None
    """Its number format; None for float32."""
    start: StartCard | None = None
    """The network that exists from which it comes; None for one that this job made."""
    warnings: tuple[WarningMessage, ...] = ()
    """What of it takes no part in the job, or differs from its files."""
    reported: Mapping[str, float] = field(default_factory=dict)
    """The scores that its model card reports of it, by metric."""

    def samples(self, split: Split) -> Samples:
        """A split behind this network's own preprocessing."""
        return Samples.of(split, self.preprocessing, device=self.device)

    def reorder(self, outputs: Tensor) -> Tensor:
        """Brings outputs (N, …, ·) into the order and scale of the job's (N, …, W), NaN for what the network does not teach."""
        if self.output_order is not None:
            order = torch.tensor(self.output_order, device=outputs.device)
            outputs = outputs.index_select(-1, order.clamp(min=0)).masked_fill(order < 0, torch.nan)
        return outputs if self.converted_to is None else self.converted_to.standardise(outputs)

    def outputs(self, split: Split) -> Tensor:
        """The outputs (N, W) on a split, with columns in the order of the job's targets."""
        return self.reorder(TASKS[self.task].predict(self.network, self.samples(split)))


def wrap_trained(
    network: nn.Module,
    *,
    trained: TrainingResult | None,
    last_test: EvaluationResult | None,
    architecture: Architecture,
    task: TaskName,
    source: str,
    preprocessing: Preprocessing,
    device: torch.device,
    targets: Targets,
    teaches: Sequence[str] | None = None,
    start: StartCard | None = None,
) -> TrainedNetwork:
    """Wraps a network that this job trained on all its ``targets``; one with an adapter is merged."""
    network.to(device).eval()
    adapted = network if adapter_of(network) is not None else None
    if adapted is not None:
        network = merged(adapted)
    in_bf16 = dtype_of(network) is torch.bfloat16
    return TrainedNetwork(
        network,
        device,
        preprocessing,
        task,
        source=source,
        architecture=architecture.model_dump(mode="json"),
        figures=trained.figures if trained else None,
        last_test=last_test,
        adapted=adapted,
        output_order=None if teaches is None else map_outputs(_classes(targets), targets.classes, teaches=teaches).order,
        teaches=None if teaches is None else tuple(teaches),
        dtype=DtypeCard(format="bf16", files="bf16", bytes=sum(map(held_bytes, network.parameters()))) if in_bf16 else None,
        start=start,
    )


def load_teacher(
    folder: Path,
    *,
    source: str,
    data: Data,
    loading: Loading = FLOAT32,
    teaches: Sequence[str] | None = None,
    revision: str | None = None,
) -> TrainedNetwork:
    """Loads a teacher of the targets ``teaches``, or of all, from a folder, with its own preprocessing, as ``loading`` says.

    Raises:
        UnreadableNetwork: the folder cannot be loaded.
        JobFault: it cannot read the data's inputs, or its classes are others.
    """
    loaded, task = load_network(folder, loading=loading), TASKS[data.task]
    if loaded.kind.task != data.task:
        theirs = TASKS[loaded.kind.task].info.network
        raise JobFault(
            "invalid_spec",
            f"The teacher {source} is no {task.info.network}, but {'an' if theirs[0] in 'aeiou' else 'a'} {theirs}.",
            hint="Choose a teacher that was trained for the job's task.",
        )
    try:
        preprocessing = task.fit_inputs(loaded, data, source=source)
    except UnfitInputs as error:
        message = f"The teacher {source} does not fit the dataset: {error}."
        raise JobFault("invalid_spec", message, hint=_HINT) from error
    outputs = _map_outputs(loaded.targets, data.targets, teaches=teaches, source=source)
    _check_kinds(loaded.targets, data.targets, outputs.order, source=source)
    is_same = outputs.order == list(range(loaded.targets.width))
    return TrainedNetwork(
        loaded.network,
        loading.device,
        preprocessing,
        data.task,
        source=source,
        architecture=None,
        output_order=None if is_same else outputs.order,
        converted_to=data.targets,
        teaches=None if teaches is None else tuple(teaches),
        num_bytes=weight_bytes(folder),
        start=StartCard(
            source=source,
            revision=revision,
            head="kept" if is_same else "mapped",
            made=[],
            dropped=list(outputs.unused) if teaches is None else [],
            tuned=False,
            licence=read_licence(folder),
        ),
        warnings=task.teacher_warnings(loaded, data, source=source)
        + (_unused_outputs(outputs, source=source) if teaches is None else ()),
        reported=read_reported(folder),
    )


def _map_outputs(theirs: Targets, ours: Targets, *, teaches: Sequence[str] | None, source: str) -> OutputMap:
    """Finds the job's outputs among the teacher's. Raises JobFault if it lacks one."""
    try:
        return map_outputs(_classes(ours), theirs.classes, teaches=teaches)
    except UnknownOutputs as error:
        message = f"The teacher {source} was trained on other classes: {error.message}."
        raise JobFault("invalid_spec", message, hint=error.hint) from error


def _check_kinds(theirs: Targets, ours: Targets, order: Sequence[int], *, source: str) -> None:
    """Raises JobFault if one kind of output is to be learned from another: a number, one class of several, a class by itself."""
    their_kinds, our_kinds = _problem_types(theirs), _problem_types(ours)
    for output, kind in zip(order, our_kinds, strict=True):
        if output >= 0 and their_kinds[output] != kind:
            name, has = theirs.classes[output], OUTPUTS[their_kinds[output]]
            raise JobFault(
                "invalid_spec",
                f"The teacher {source} has {has} at its output {name!r}, the dataset {OUTPUTS[kind]}.",
                hint=how_to_agree(kind),
            )


def _problem_types(targets: Targets) -> list[ProblemType]:
    """The library's word for what each output is."""
    kinds: list[ProblemType] = [
        NUMBERS if each.classes is None else MULTI_LABEL if each.is_multi_label else ONE_LABEL for each in targets
    ]
    return [kind for kind, target in zip(kinds, targets, strict=True) for _ in range(target.width)]


def _classes(targets: Targets) -> dict[str, Sequence[str] | None]:
    return {target.name: target.classes for target in targets}


def _unused_outputs(outputs: OutputMap, *, source: str) -> tuple[WarningMessage, ...]:
    if not outputs.unused:
        return ()
    names = ", ".join(map(repr, outputs.unused[:10])) + (" and more" if len(outputs.unused) > 10 else "")
    message = (
        f"The teacher {source} has {len(outputs.unused)} outputs that the dataset has no class for ({names}): they take no part, "
        "and the student does not learn them."
    )
    return (WarningMessage(code="teacher_outputs_unused", message=message),)


def weight_bytes(folder: Path) -> int:
    """Size of a network's weights on disk, whether in one file or in several."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
