"""How a network that a job trains begins: with random weights, with its teacher's layers, or with those of a network that exists.

Invariant: the same generator state gives the same network again. Errors are JobFaults with their place in the spec.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from service.model_facts import read_licence
from service.spec.adapters import Lora
from service.spec.architectures import Architecture
from service.spec.cards.network import StartCard
from service.spec.shapes import InputShape
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, first
from worker.data.errors import UnfitInputs, UnreadableTokenizer
from worker.data.tensors import to_device
from worker.errors import JobFault
from worker.export.units import unfold_units
from worker.models import LoadedNetwork, NetworkKind, UnfitArchitecture, UnreadableNetwork, build_network, build_on_meta
from worker.models.adapters import UnfitAdapter, adapted_name, attach
from worker.models.build import built_from
from worker.models.depth import inner_model
from worker.models.given import Fitted, describe_given, load_given
from worker.models.loading import FLOAT32, Loading
from worker.models.output_layer import NoOutputLayer, find_output_layer
from worker.models.teacher_layers import UnfitStart, take_teacher_layers
from worker.targets import Targets
from worker.tasks import Task
from worker.trained import TrainedNetwork

logger = logging.getLogger(__name__)

_MOST_NAMES = 10


class Start(Protocol):
    """The beginning of one network of a job."""

    @property
    def architecture(self) -> Architecture:
        """What the network is."""

    def build(self, *, num_outputs: int) -> nn.Module:
        """The network in ``train()``, on the CPU. Raises JobFault."""

    def on_meta(self, *, num_outputs: int) -> nn.Module:
        """The network as shapes alone. Raises UnfitArchitecture."""


@dataclass(frozen=True)
class RandomStart:
    """A network of an architecture of the spec, freshly initialised from torch's global generator."""

    architecture: Architecture
    kind: NetworkKind
    input_shape: Callable[[], InputShape]
    role: str
    pointer: str
    """The place of the architecture in the spec."""

    def build(self, *, num_outputs: int) -> nn.Module:
        try:
            return build_network(self.architecture, kind=self.kind, input_shape=self.input_shape(), num_outputs=num_outputs)
        except UnfitArchitecture as error:
            raise JobFault(
                "invalid_spec",
                f"The {self.role}'s architecture does not fit the data: {error}",
                details={"pointer": self.pointer},
            ) from error

    def on_meta(self, *, num_outputs: int) -> nn.Module:
        return build_on_meta(self.architecture, kind=self.kind, input_shape=self.input_shape(), num_outputs=num_outputs)


@dataclass
class GivenStart:
    """A network that exists: its body as it is, its head as the job's targets ask for."""

    source: str
    task: Task
    targets: Callable[[], Targets]
    folder: Callable[[], Path]
    role: str
    pointer: str
    """The place of the source in the spec."""
    loading: Loading = FLOAT32
    lora: Lora | None = None
    """The adapter that is trained in place of its weights."""
    fitted: Fitted | None = field(default=None, init=False)
    """What became of the head; None until the network was built."""
    _reads_alone: bool = field(default=False, init=False)

    @cached_property
    def described(self) -> LoadedNetwork:
        """The network as shapes alone, and all that stands beside it. Raises JobFault."""
        with self._faults():
            return describe_given(self.folder(), self.task.network, targets=self.targets())

    @property
    def architecture(self) -> Architecture:
        architecture: Architecture = built_from(self.described.network).architecture
        return architecture

    def build(self, *, num_outputs: int) -> nn.Module:
        return self._adapted(self._load().network)

    def on_meta(self, *, num_outputs: int) -> nn.Module:
        with self._faults():
            return self._adapted(describe_given(self.folder(), self.task.network, targets=self.targets()).network)

    def base(self) -> nn.Module:
        """The network as it is adapted. What of it is not the folder's own, which its adapter has, holds no values."""
        network = self._load().network
        with torch.no_grad():
            for name in self._replaced:
                inner_model(network).get_parameter(name).fill_(torch.nan)
        return network

    def preprocessing(self, data: Data) -> Preprocessing:
        """The network's own preprocessing, fitted to the data. Raises JobFault if it cannot read them."""
        # A network of texts is not run for it, and may be large.
        loaded = self.described if self.task.info.input_kind == "text" else self._load()
        loaded.network.eval()  # it may be run
        with self._faults():
            reads = self.task.fit_inputs(loaded, data, source=self.source)
        self._reads_alone = bool(getattr(loaded.network, "reads_clips_alone", False))
        return reads

    def warnings(self) -> list[WarningMessage]:
        """What became of the head, told; the network is built for it if it was not."""
        if self.fitted is None:
            self._load()
        return [] if self.fitted is None else list(_told(self.fitted, self.targets(), role=self.role, source=self.source))

    def card(self, revision: str | None) -> StartCard | None:
        """The report's card; None until the network was built."""
        if self.fitted is None:
            return None
        return StartCard(
            source=self.source,
            revision=revision,
            head=self.fitted.kind,
            made=list(self.fitted.made),
            dropped=list(self.fitted.dropped),
            tuned=True,
            licence=read_licence(self.folder()),
        )

    def made(self) -> tuple[str, ...]:
        """The weights that are made anew, by their names in the library's model; the network is built for it if it was not."""
        if self.fitted is None:
            self._load()
        made = () if self.fitted is None else self.fitted.made
        return made if self.lora is None else tuple(map(adapted_name, made))

    @property
    def _replaced(self) -> tuple[str, ...]:
        return () if self.fitted is None else (*self.fitted.made, *self.fitted.mapped)

    def _adapted(self, network: nn.Module) -> nn.Module:
        if self.lora is None:
            return network
        try:
            attach(network, self.lora, new_weights=self._replaced)
        except UnfitAdapter as error:
            message = f"The {self.role} {self.source} has no place for its adapter: {error}."
            place = f"{self.pointer.removesuffix('source')}adapter/targets"
            hint = "Name other layers; without targets the linear ones of the body are taken."
            raise JobFault("invalid_spec", message, hint=hint, details={"pointer": place}) from error
        return network

    def _load(self) -> LoadedNetwork:
        with self._faults():
            loaded, self.fitted = load_given(self.folder(), self.task.network, targets=self.targets(), loading=self.loading)
        if self._reads_alone:
            loaded.network.reads_clips_alone = True  # type: ignore[assignment]
        return loaded

    @contextmanager
    def _faults(self) -> Iterator[None]:
        details: dict[str, Any] = {"pointer": self.pointer}
        try:
            yield
        except (UnreadableNetwork, UnreadableTokenizer) as error:
            raise JobFault(
                "input_unavailable", f"The {self.role} {self.source} cannot be loaded: {error}", details=details
            ) from error
        except (UnfitArchitecture, UnfitInputs) as error:
            raise JobFault(
                "invalid_spec", f"The {self.role} {self.source} does not fit the dataset: {error}", details=details
            ) from error
        except JobFault as fault:
            fault.details.setdefault("pointer", self.pointer)
            raise


def refuse_untuned(
    folder: Path, error: UnreadableNetwork | JobFault, *, task: Task, targets: Targets, source: str, place: str
) -> None:
    """Raises a JobFault with the remedy for a teacher at ``place`` in the spec that failed as it is for nothing but its head.

    A head that is made anew is noise until it was trained, so it never teaches untuned.
    """
    try:
        _, fitted = load_given(folder, task.network, targets=targets)
    except (UnreadableNetwork, UnfitArchitecture):
        return
    if fitted.kind != "new":
        return
    tune = f"give it a training at /{place}/training: its head is made anew then, and tuned on the data before it teaches."
    message, hint = f"The teacher {source} cannot teach as it is: {error}.", f"{tune[0].upper()}{tune[1:]}"
    details: dict[str, Any] = {"pointer": f"/{place}/training"}
    if isinstance(error, JobFault):
        message, hint = error.message, f"{error.hint} Or {tune}"
        details = error.details if fitted.dropped else details
    raise JobFault("invalid_spec", message, hint=hint, details=details) from error


def _told(fitted: Fitted, targets: Targets, *, role: str, source: str) -> Iterator[WarningMessage]:
    """Says what of a network's own head is not what it was."""
    dropped = _listed(fitted.dropped)
    if fitted.kind == "new":
        ours = _listed([target.name if target.classes is None else name for target in targets for name in target.classes or [""]])
        if any(target.classes is None for target in targets):
            why = "a number is learned in the data's own unit"
        elif fitted.dropped:
            why = f"its outputs are {dropped}, and the job's {ours}"
        else:
            why = f"it has none of this task with a name for each of its outputs, and the job's are {ours}"
        left_out = f" What it has instead takes no part: {_listed(fitted.left_out)}." if fitted.left_out else ""
        message = f"The head of the {role} {source} is made anew ({_listed(fitted.made)}): {why}.{left_out}"
        yield WarningMessage(code="head_made", message=message)
        return
    if fitted.kind == "mapped":
        message = f"The head of the {role} {source} is its own, in the order of the job's classes: {_listed(fitted.kept)}."
        yield WarningMessage(code="head_mapped", message=message)
    if fitted.dropped:
        message = (
            f"The {role} {source} has {len(fitted.dropped)} outputs that the job has no class for: {dropped}. They are left out."
        )
        yield WarningMessage(code="outputs_dropped", message=message)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names[:_MOST_NAMES])) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )


def begin_with_teacher_layers(
    student: nn.Module,
    teacher: nn.Module,
    *,
    layers: list[int] | None,
    data: Data,
    reads: Preprocessing,
    loaded: TrainedNetwork | None,
    keeps_outputs: bool,
) -> None:
    """Initialises a student, which ``reads`` the data, with layers of its teacher. Raises JobFault.

    ``loaded`` is the teacher where another than this job trained it: its numbers have the data's units, its classes its own
    order. ``keeps_outputs``: whether the student's output layer may be the teacher's.
    """
    try:
        taken = take_teacher_layers(student, teacher if loaded is None else unfold_units(loaded, data), layers)
        order = None if loaded is None else loaded.output_order
        if order is not None and keeps_outputs and sorted(order) == list(range(data.targets.width)):
            inputs = reads(reads.prepare(first(data.splits["train"].inputs, 2)))
            find_output_layer(student, to_device(inputs, next(student.parameters()).device)).reorder(order)
    except (UnfitStart, NoOutputLayer) as error:
        message = f"The student cannot begin with its teacher's layers: {error}"
        raise JobFault("invalid_spec", message, details={"pointer": "/student/source"}) from error
    logger.info("The student begins with the teacher's layers %s.", ", ".join(map(str, taken)))
