"""A teacher's outputs on a training split: precomputed, per view, or in each step.

They are computed once for the whole split if they fit into memory; features of inner layers that do not are computed batch by
batch, in each step. With a cache memory is no limit, and nothing is computed twice. On an augmented split, whose samples have
another view in each epoch, the teacher computes its outputs in each step, on the very view that the student sees (consistent
teaching: Beyer et al., Knowledge distillation: A good teacher is patient and consistent, 2022, arXiv:2106.05237).

Invariant: precomputed outputs are the same to the last bit whether they come from memory or from files. N samples, B batch,
W outputs, L tokens.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data import Preprocessing
from worker.data.samples import Batch, Samples
from worker.data.tensors import Inputs, row_width
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.eval_mode import in_eval_mode
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.methods import FeatureExtractor, Outputs
from worker.methods.compared import concatenate_padded
from worker.teachers.cache import DamagedOutputs, TeacherCache
from worker.teachers.cache_key import CacheKey
from worker.training.criterion import TeacherOutputs

PRECOMPUTE_BYTES = 512 * 2**20
"""Features of a larger total size are computed in each step instead, unless a cache holds them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheSlot:
    """A cache and the key under which outputs are read from it, or written if they are not there."""

    cache: TeacherCache
    cache_key: CacheKey


Features = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor | None]]
"""From sample indices (B,) to the teacher's features of these samples, by layer, (B, …) each, and which tokens count (B, L)."""


SplitOutputs = Mapping[str, Tensor]
"""A teacher's outputs on a whole split: ``logits`` (N, W), ``layer PATH`` (N, …) for each, and of texts ``counted`` (N, L), the
token mask."""


def _unchanged(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True)
class PrecomputedOutputs:
    """Outputs that were computed for the whole split, so that a step has no teacher in it; large features may not be."""

    logits: Tensor
    """(N, W), in float32."""
    features: Features
    layers: Mapping[str, torch.Size]
    """The shape of each layer's features, without the batch."""
    device: torch.device
    """Device of the batches."""
    reorder: Callable[[Tensor], Tensor] = _unchanged
    """Brings the outputs of a batch into the order of the job's, where those of the whole split are not in it."""

    def __call__(self, batch: Batch) -> Outputs:
        logits = self.reorder(_select_rows(self.logits, batch.indices).to(self.device, non_blocking=True))
        return Outputs(logits, *self.features(batch.indices))

    def stored_bytes(self, num_samples: int) -> int:
        features = num_samples * 4 * sum(prod(shape) for shape in self.layers.values())
        return num_samples * self.logits[0].nbytes + (features if features <= PRECOMPUTE_BYTES else 0)


@dataclass(frozen=True)
class ViewOutputs:
    """Outputs that were computed for each of a few views of an augmented split, which come again every so many epochs."""

    views: Sequence[SplitOutputs]
    reorder: Callable[[Tensor], Tensor]
    device: torch.device
    """Device of the batches."""

    def __call__(self, batch: Batch) -> Outputs:
        outputs = self.views[batch.epoch % len(self.views)]
        logits = _select_rows(outputs["logits"], batch.indices).to(self.device, non_blocking=True)
        return Outputs(self.reorder(logits), *_select_features(outputs, batch.indices, device=self.device))

    def stored_bytes(self, num_samples: int) -> int:
        return 0


class StepOutputs:
    """Outputs that are computed in each step, on the very view of an augmented split that the student sees."""

    def __init__(
        self,
        teacher: nn.Module,
        samples: Samples,
        layers: Mapping[str, torch.Size],
        *,
        preprocessing: Preprocessing,
        reorder: Callable[[Tensor], Tensor],
    ) -> None:
        self._teacher, self._samples, self._preprocessing, self._reorder = teacher, samples, preprocessing, reorder
        self._extractor = FeatureExtractor(teacher, list(layers))

    def __call__(self, batch: Batch) -> Outputs:
        inputs = self._samples.view_for(batch, self._preprocessing)
        with in_eval_mode(self._teacher):
            outputs = self._extractor(inputs)
        return replace(outputs, logits=self._reorder(outputs.logits))

    def stored_bytes(self, num_samples: int) -> int:
        return 0


def compute_teacher_outputs(
    teacher: nn.Module,
    samples: Samples,
    layers: Mapping[str, torch.Size],
    *,
    after_batch: Callable[[int], None],
    slot: CacheSlot | None = None,
    on_start: Callable[[bool], None] = lambda is_cached: None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> PrecomputedOutputs:
    """Computes the teacher's outputs for all samples, on the device of the batches, or memory-maps those in the cache.

    ``samples`` are behind the teacher's own preprocessing. ``layers`` gives each layer's shape without the batch. ``on_start``
    gets whether the outputs are read from ``slot``; ``after_batch`` gets the number of samples done, and may raise to stop.
    """
    forward = partial(
        _forward_split, teacher, len(samples), lambda start: samples.inputs_from(start, EVALUATION_BATCH), after_batch, group
    )
    samples.announce_all(EVALUATION_BATCH, group)
    outputs = None if slot is None else _cached(slot, forward, layers, samples, on_start=on_start, group=group)
    if outputs is not None:
        return _precomputed(outputs, layers, samples)
    if slot is None:
        on_start(False)
    if _num_bytes(layers, samples) > PRECOMPUTE_BYTES:
        features = _features_per_step(teacher, samples, list(layers))
        return PrecomputedOutputs(_in_memory(forward, {})["logits"], features, layers, samples.device)
    return _precomputed(_in_memory(forward, layers), layers, samples)


def compute_view_outputs(
    teacher: nn.Module,
    samples: Samples,
    layers: Mapping[str, torch.Size],
    *,
    preprocessing: Preprocessing,
    reorder: Callable[[Tensor], Tensor],
    num_views: int | None = None,
    slot: Callable[[int], CacheSlot | None] = lambda view: None,
    on_start: Callable[[int, bool], None] = lambda view, is_cached: None,
    after_batch: Callable[[int], None] = lambda done: None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TeacherOutputs:
    """Provides the teacher's outputs, behind its own preprocessing, on the views of the student's augmented ``samples``.

    They are computed in each step, on the batch's own view; with ``num_views`` views in all, beforehand for each view, if each
    ``slot`` caches them or they fit into memory. ``reorder`` brings the teacher's outputs into the order of the job's.
    """
    per_step = StepOutputs(teacher, samples, layers, preprocessing=preprocessing, reorder=reorder)
    if num_views is None:
        return per_step
    fits = num_views * _num_bytes(layers, samples) <= PRECOMPUTE_BYTES
    views: list[SplitOutputs] = []
    for view in range(num_views):

        def inputs_from(start: int, view: int = view) -> Inputs:
            indices = torch.arange(start, min(start + EVALUATION_BATCH, len(samples)))
            return samples.view_for(samples.batch(indices, epoch=view), preprocessing)

        view_slot, on_view_start = slot(view), partial(on_start, view)
        if view_slot is None and not fits:
            return per_step
        forward = partial(_forward_split, teacher, len(samples), inputs_from, after_batch, group)
        outputs = None if view_slot is None else _cached(view_slot, forward, layers, samples, on_start=on_view_start, group=group)
        if outputs is None and not fits:
            return per_step
        if view_slot is None:
            on_view_start(False)
        views.append(outputs or _in_memory(forward, layers))

    return ViewOutputs(views, reorder, samples.device)


_Consume = Callable[[Mapping[str, Tensor]], None]
_Forward = Callable[[Mapping[str, torch.Size], _Consume], None]
"""Runs a teacher on a split, with the features of some layers, and passes each batch's outputs on."""


def _forward_split(
    teacher: nn.Module,
    num_samples: int,
    inputs_from: Callable[[int], Inputs],
    after_batch: Callable[[int], None],
    group: ProcessGroup,
    layers: Mapping[str, torch.Size],
    consume: _Consume,
) -> None:
    """Runs the teacher on the split, batch by batch. Each rank computes some of the batches, and all ranks get all outputs."""
    with in_eval_mode(teacher), FeatureExtractor(teacher, list(layers)) as extractor:

        def batch_from(start: int) -> Mapping[str, Tensor]:
            outputs = extractor(inputs_from(start))
            tensors = {"logits": outputs.logits.to(torch.float32)}
            tensors |= {f"layer {path}": outputs.features[path].to(torch.float32) for path in layers}
            if outputs.token_mask is not None:
                tensors["counted"] = outputs.token_mask
            return tensors

        num_done = 0
        for tensors in group.all_gather_batches(range(0, num_samples, EVALUATION_BATCH), batch_from):
            consume(tensors)
            num_done += len(tensors["logits"])
            after_batch(num_done)


def _in_memory(forward: _Forward, layers: Mapping[str, torch.Size]) -> SplitOutputs:
    pieces: dict[str, list[Tensor]] = {}

    def consume(tensors: Mapping[str, Tensor]) -> None:
        for name, piece in tensors.items():
            pieces.setdefault(name, []).append(piece)

    forward(layers, consume)
    return {name: concatenate_padded(each) for name, each in pieces.items()}


def _cached(
    slot: CacheSlot,
    forward: _Forward,
    layers: Mapping[str, torch.Size],
    samples: Samples,
    *,
    on_start: Callable[[bool], None],
    group: ProcessGroup,
) -> SplitOutputs | None:
    """Reads the outputs from the cache, or computes and writes them; None if they cannot be written, and are lost."""
    found = slot.cache.read(slot.cache_key)
    is_found = group.all_true(found is not None)
    on_start(is_found)
    if is_found:
        return found
    if group.world_size == 1:
        return _write(slot, partial(forward, layers), samples)
    written: SplitOutputs | None = None
    if group.is_rank0:
        written = _write_beside(slot, partial(forward, layers), samples)
    else:
        forward(layers, lambda tensors: None)
    if not group.all_true(written is not None or not group.is_rank0):
        return None
    outputs = written or _read_back(slot)
    return outputs if group.all_true(outputs is not None) else None


def _write_beside(slot: CacheSlot, produce: Callable[[_Consume], None], samples: Samples) -> SplitOutputs | None:
    """:func:`_write`, but that all batches are produced in any case: the other ranks compute theirs with this one."""
    is_produced = False

    def in_any_case(consume: _Consume) -> None:
        nonlocal is_produced
        failures: list[OSError] = []

        def consume_next(tensors: Mapping[str, Tensor]) -> None:
            try:
                if not failures:
                    consume(tensors)
            except OSError as error:
                failures.append(error)

        is_produced = True
        produce(consume_next)
        if failures:
            raise failures[0]

    written = _write(slot, in_any_case, samples)
    if not is_produced:
        produce(lambda tensors: None)
    return written


def _read_back(slot: CacheSlot) -> SplitOutputs | None:
    """What another rank has written; None if it is not to be read here."""
    try:
        return slot.cache.read_back(slot.cache_key)
    except (OSError, DamagedOutputs) as error:
        logger.warning("The teacher's outputs that another rank has cached cannot be read: %s", error)
        return None


def _write(slot: CacheSlot, produce: Callable[[_Consume], None], samples: Samples) -> SplitOutputs | None:
    """Writes the batches that ``produce`` passes on into the cache; None if they cannot be written."""
    lengths = row_width(samples.inputs) or 0, samples.labels.shape[1] if len(samples.labels.shape) > 1 else 0
    try:
        with slot.cache.write(slot.cache_key, num_samples=len(samples)) as writer:
            produce(lambda tensors: writer.add({name: _pad(name, each, *lengths) for name, each in tensors.items()}))
        return slot.cache.read_back(slot.cache_key)
    except (OSError, DamagedOutputs) as error:
        logger.warning("The teacher's outputs are not cached for later jobs: %s", error)
        return None


def _pad(name: str, piece: Tensor, num_tokens: int, num_labels: int) -> Tensor:
    """Pads features of tokens to those of the split's longest text, and outputs of a sample's parts to as many as its labels.

    All samples of a file have one size.
    """
    has_parts = name == "counted" or piece.dim() == 3
    missing = (num_labels if name == "logits" else num_tokens) - piece.shape[1] if has_parts else 0
    return functional.pad(piece, (*[0, 0] * (piece.dim() - 2), 0, missing)) if missing > 0 else piece


def _select_features(
    outputs: SplitOutputs, indices: Tensor, *, device: torch.device
) -> tuple[Mapping[str, Tensor], Tensor | None]:
    features = {
        name: _select_rows(each, indices).to(device, non_blocking=True) for name, each in outputs.items() if name != "logits"
    }
    token_mask = features.pop("counted", None)
    return {name.removeprefix("layer "): each for name, each in features.items()}, token_mask


def _num_bytes(layers: Mapping[str, torch.Size], samples: Samples) -> int:
    return 4 * len(samples) * sum(_max_values(shape, samples) for shape in layers.values())


def _max_values(shape: torch.Size, samples: Samples) -> int:
    """The largest number of values in one sample's features; features of tokens (L, D) may have those of the longest text."""
    width = row_width(samples.inputs)
    return max(shape[0], width) * shape[1] if len(shape) == 2 and width is not None else shape.numel()


def _select_rows(tensor: Tensor, indices: Tensor) -> Tensor:
    return tensor.index_select(0, indices.to(tensor.device))


def _precomputed(outputs: SplitOutputs, layers: Mapping[str, torch.Size], samples: Samples) -> PrecomputedOutputs:
    features = partial(_select_features, outputs, device=samples.device)
    return PrecomputedOutputs(outputs["logits"], features, layers, samples.device)


def _features_per_step(teacher: nn.Module, samples: Samples, layers: list[str]) -> Features:
    extractor = FeatureExtractor(teacher, layers)

    def compute(indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        inputs = samples.batch(indices).inputs
        with in_eval_mode(teacher):
            outputs = extractor(inputs)
        return outputs.features, outputs.token_mask

    return compute
