"""How a training fits into the memory that there is: in micro batches, and by computing inner results of layers twice.

Both give the same gradient in less memory, up to rounding. What is chosen without being asked for is measured: what a step keeps
for its backward pass, against what is free. Where memory runs out all the same, the step is taken back, the next saving is made,
and the step taken again. Invariant: a saving is part of the training's state, since sums are split by it; and a step that ran out
of memory leaves neither gradients nor written buffers, and its random numbers are drawn again.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from service.spec.training import TrainingSpec
from service.spec.warning_message import WarningMessage
from worker.distributed.out_of_memory import is_out_of_memory
from worker.distributed.sync_batch_norm import batch_norms
from worker.errors import UnfitTraining
from worker.host_memory import free_host_bytes
from worker.models.depth import inner_model

if TYPE_CHECKING:
    from worker.training.loop import Training

logger = logging.getLogger(__name__)

T = TypeVar("T")
_SHARE = 0.8
"""Of the free memory that a step may take; the backward pass needs some beside what was saved for it."""
_COPIES = 3
"""Gradients and two moments of each trained weight, which the first step makes."""


class MemorySavings:
    """The savings of one training, which become more where memory runs out."""

    def __init__(self, network: nn.Module, spec: TrainingSpec) -> None:
        """Raises UnfitTraining if the network cannot save what the spec asks for."""
        self._network, self._spec = network, spec
        self._warnings: list[WarningMessage] = []
        self._last_is_recomputation = False
        self.micro_batch = spec.micro_batch if isinstance(spec.micro_batch, int) else None
        """Samples that go through a network at once; None for the whole batch."""
        self.recomputes = False
        """Whether inner results of layers are computed again for the backward pass."""
        if spec.micro_batch is not None and _counting_norms(network):
            raise UnfitTraining(
                "micro_batch",
                "its batch norm reads the whole batch at once",
                "Leave micro_batch out and raise gradient_accumulation, or take an architecture without batch norm.",
            )
        if spec.gradient_checkpointing is True:
            _check_recomputable(network)
            self._recompute()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"micro_batch": self.micro_batch, "recomputes": self.recomputes}

    def restore(self, state: dict[str, Any]) -> None:
        """Makes the savings that :meth:`state` tells."""
        self.micro_batch = state["micro_batch"]
        if state["recomputes"] and not self.recomputes:
            self._recompute()

    def warn(self, message: str) -> None:
        """Keeps what is to be told of the last saving."""
        code = "gradient_checkpointing_on" if self._last_is_recomputation else "micro_batch_halved"
        self._warnings.append(WarningMessage(code=code, message=message))

    def take_warnings(self) -> list[WarningMessage]:
        """The warnings since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def next(self, batch_size: int, *, is_asked_for: bool = False) -> Callable[[], str] | None:
        """What makes the next saving and tells of it, for batches of so many samples; None if there is none.

        Where nothing but a measurement asks for it, micro batches whose size the spec gives stay as they are.
        """
        size = min(self.micro_batch or batch_size, batch_size)
        if size > 1 and (self._spec.micro_batch == "auto" or (is_asked_for and self._spec.micro_batch is not None)):
            return lambda: self._halve(size)
        if self._spec.gradient_checkpointing == "auto" and not self.recomputes and _is_recomputable(self._network):
            return self._recompute
        return None

    def _halve(self, size: int) -> str:
        self.micro_batch, self._last_is_recomputation = (size + 1) // 2, False
        return f"{self.micro_batch:,} samples at a time, instead of {size:,}"

    def _recompute(self) -> str:
        model = inner_model(self._network)
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # of use to the other form alone; frozen embeddings would get gradients
        self.recomputes = self._last_is_recomputation = True
        return "the inner results of layers computed twice"


def choose_savings(training: "Training") -> None:
    """Makes the savings that a training needs, as measured by forward passes of a few samples, before its first step."""
    try:
        _choose_savings(training)
    except (RuntimeError, MemoryError) as error:
        # Even these may be too much: the first step finds out what is not.
        if training.group.world_size > 1 or not is_out_of_memory(error):
            raise


def _choose_savings(training: "Training") -> None:
    savings, group = training.savings, training.group
    batch_size = min(training.spec.batch_size, len(training.samples))
    if savings.next(batch_size) is None or (free := _free_bytes(training.device)) is None:
        return
    if training.device.type == "cpu":
        free /= group.world_size
    trained = sum(weight.nbytes for module in training.modules for weight in module.parameters() if weight.requires_grad)
    budget, per_sample = free * _SHARE - _COPIES * trained, saved_bytes(training)
    while (save := savings.next(batch_size)) is not None:
        rows = math.ceil(min(savings.micro_batch or batch_size, batch_size) / group.world_size)
        if group.all_true(rows * per_sample <= budget):
            return
        needed, there, how = rows * per_sample / 2**30, free / 2**30, save()
        logger.info("A pass of %d samples would take %.2f GiB, and %.2f are free: training with %s.", rows, needed, there, how)
        per_sample = saved_bytes(training)


def within_memory(training: "Training", compute: Callable[[], T]) -> T:
    """Computes the gradients of a step, and where memory runs out, again with further savings, as long as there are some.

    Several ranks do so in micro batches alone: elsewhere the others would wait for ever for the rank that ran out of memory.
    """
    group, savings, batch_size = training.group, training.savings, min(training.spec.batch_size, len(training.samples))
    while True:
        save = savings.next(batch_size, is_asked_for=True) if group.world_size == 1 or group.agrees_on_memory else None
        before = None if save is None else _Before(training)
        try:
            with group.together():
                result = compute()
            break
        except (RuntimeError, MemoryError) as error:
            if save is None or before is None or not is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), "")[:200]
        before.put_back()
        if training.device.type == "cuda":
            torch.cuda.empty_cache()
        where = f"step {training.step + 1:,} of the {training.name}'s training ({reason})"
        savings.warn(f"Memory ran out in {where}. It was taken again, and all after it are taken, with {save()}.")
    for module in training.modules:
        group.average_gradients(module)
    return result


def saved_bytes(training: "Training") -> float:
    """Computes the bytes that a step saves for its backward pass for each of its samples, weights left out.

    All that it runs leaves the training as it was.
    """
    samples, group = training.samples, training.group
    if samples.mask is not None:
        row = int(samples.mask.lengths.argmax())
    else:
        row = int(samples.labels.sum(dim=1).argmax()) if samples.labels.dtype == torch.bool else 0  # of tokens, the longest
    known = {
        each.untyped_storage()._cdata
        for module in training.modules
        for tensors in (module.parameters(), module.buffers())
        for each in tensors
    }
    has_norm = any(batch_norms(module) for module in training.modules)
    least = max(group.world_size, 2 if has_norm else 1)  # of one sample a batch norm, which a method may have, has no variance
    before, sizes = _Before(training), []
    try:
        for count in (least, least + group.world_size):
            saved: dict[int, int] = {}

            def see(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
                storage = tensor.untyped_storage()
                if storage._cdata not in known:
                    saved[storage._cdata] = storage.nbytes()
                return tensor

            indices = torch.full((count,), row, device=samples.home)
            with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor), recomputed_inputs(training.modules, see):
                training.batch_losses(indices)
            sizes.append(sum(saved.values()))
    finally:
        before.put_back()
    return float(max(0, sizes[1] - sizes[0]))


@contextmanager
def recomputed_inputs(modules: Sequence[nn.Module], see: Callable[[Tensor], object]) -> Iterator[None]:
    """Shows ``see`` the inputs of layers that compute twice: they are kept until then, and autograd's hooks do not see them."""

    def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
        for each in inputs:
            if isinstance(each, Tensor):
                see(each)

    layers = [part for module in modules for part in module.modules() if getattr(part, "gradient_checkpointing", False)]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Before:
    """What a step changes before its optimizer's own: gradients, of which there are none, buffers and random numbers."""

    def __init__(self, training: "Training") -> None:
        self._training = training
        self._states = training.group.rng_states(training.device)
        self._buffers = [(buffer, buffer.clone()) for module in training.modules for buffer in module.buffers()]

    def put_back(self) -> None:
        for module in self._training.modules:
            module.zero_grad()
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._training.group.set_rng_states(self._states, self._training.device)


def _free_bytes(device: torch.device) -> float | None:
    """Bytes of memory that the device has for a training; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return free_host_bytes()


def _counting_norms(network: nn.Module) -> bool:
    """Whether the network has batch norm that a training does not freeze."""
    return any(norm.weight is None or norm.weight.requires_grad for _, _, norm in batch_norms(network))


def _is_recomputable(network: nn.Module) -> bool:
    return bool(getattr(inner_model(network), "supports_gradient_checkpointing", False)) and not _counting_norms(network)


def _check_recomputable(network: nn.Module) -> None:
    """Raises UnfitTraining if the layers' inner results cannot be computed twice."""
    if _is_recomputable(network):
        return
    what = "its batch norm would count each batch twice" if _counting_norms(network) else "its layers cannot do it"
    raise UnfitTraining("gradient_checkpointing", what, "Leave gradient_checkpointing out, and set micro_batch to save memory.")
