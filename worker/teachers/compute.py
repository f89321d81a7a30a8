"""How a teacher is asked about a training split.

Once about the whole of it where its answers fit into memory; what is too large, inner layers of large datasets, is asked for
batch by batch. With a cache neither is memory a limit nor is asked what was asked before. Of an augmented split, whose samples
have another view in each epoch, the teacher is asked in each step about the very view that the student sees (consistent teaching:
Beyer et al., Knowledge distillation: A good teacher is patient and consistent, 2022, arXiv:2106.05237).

Invariant: what was asked beforehand is the same to the last bit whether it comes from memory or from files. N samples, B batch,
W outputs, L tokens.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data import Preprocessing
from worker.data.samples import Batch, Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.eval_mode import in_eval_mode
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.methods import FeatureExtractor, Outputs
from worker.methods.compared import padded_together
from worker.teachers.cache import DamagedOutputs, TeacherCache
from worker.teachers.cache_key import CacheKey
from worker.training.objective import TeacherFeatures, TeacherOutputs

PRECOMPUTE_BYTES = 512 * 2**20
"""Features above this size in all are computed in each step instead, where they cannot be kept in files."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheSlot:
    """Where the answers to one question are found, or left for the next who asks."""

    cache: TeacherCache
    cache_key: CacheKey


def compute_teacher_outputs(
    teacher: nn.Module,
    samples: Samples,
    layers: Mapping[str, torch.Size],
    *,
    after_batch: Callable[[int], None],
    kept: CacheSlot | None = None,
    begin: Callable[[bool], None] = lambda is_kept: None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Tensor, TeacherFeatures]:
    """The teacher's outputs (N, W) for all samples, in float32, and its features.

    ``samples`` are behind the teacher's own preprocessing. ``layers`` gives each layer's shape without the batch. ``begin`` is
    told whether the answers are read from ``kept``; ``after_batch`` how many samples are done, and may raise, to end it.
    """
    show = partial(_show, teacher, len(samples), lambda start: samples.inputs_from(start, EVALUATION_BATCH), after_batch, group)
    whole = None if kept is None else _from_files(kept, show, layers, samples, begin=begin, group=group)
    if whole is not None:
        return whole["logits"], partial(_looked_up, whole, device=samples.device)
    if kept is None:
        begin(False)
    if _num_bytes(layers, samples) > PRECOMPUTE_BYTES:
        return _in_memory(show, {})["logits"], _asking(teacher, samples, list(layers))
    whole = _in_memory(show, layers)
    return whole["logits"], partial(_looked_up, whole, device=samples.device)


def compute_view_outputs(
    teacher: nn.Module,
    samples: Samples,
    layers: Mapping[str, torch.Size],
    *,
    preprocessing: Preprocessing,
    reorder: Callable[[Tensor], Tensor],
    num_views: int | None = None,
    kept: Callable[[int], CacheSlot | None] = lambda view: None,
    begin: Callable[[int, bool], None] = lambda view, is_kept: None,
    after_batch: Callable[[int], None] = lambda done: None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TeacherOutputs:
    """The teacher, behind its own preprocessing, on the views of the student's augmented ``samples``.

    It is asked in each step about the batch's own view; where there are ``num_views`` in all, about each of them beforehand, if
    the answers are ``kept`` or fit into memory. ``reorder`` brings the teacher's outputs into the order of the job's.
    """
    each_step = _asking_views(teacher, samples, layers, preprocessing=preprocessing, reorder=reorder)
    if num_views is None:
        return each_step
    fits = num_views * _num_bytes(layers, samples) <= PRECOMPUTE_BYTES
    views: list[Whole] = []
    for view in range(num_views):

        def inputs_from(start: int, view: int = view) -> Tensor:
            places = torch.arange(start, min(start + EVALUATION_BATCH, len(samples)))
            return samples.view_for(samples.batch(places, epoch=view), preprocessing)

        where, say = kept(view), partial(begin, view)
        if where is None and not fits:
            return each_step
        show = partial(_show, teacher, len(samples), inputs_from, after_batch, group)
        whole = None if where is None else _from_files(where, show, layers, samples, begin=say, group=group)
        if whole is None and not fits:
            return each_step
        if where is None:
            say(False)
        views.append(whole or _in_memory(show, layers))

    def answers(batch: Batch) -> Outputs:
        whole = views[batch.epoch % num_views]
        logits = _chosen(whole["logits"], batch.indices).to(samples.device, non_blocking=True)
        return Outputs(reorder(logits), *_looked_up(whole, batch.indices, device=samples.device))

    return answers


Whole = Mapping[str, Tensor]
"""``logits`` (N, W), ``layer PATH`` (N, …) for each, and ``counted`` (N, L) of texts: what a teacher says to all samples."""

_Show = Callable[[Mapping[str, torch.Size], Callable[[Mapping[str, Tensor]], None]], None]


def _show(
    teacher: nn.Module,
    num_samples: int,
    inputs_from: Callable[[int], Tensor],
    after_batch: Callable[[int], None],
    group: ProcessGroup,
    layers: Mapping[str, torch.Size],
    take: Callable[[Mapping[str, Tensor]], None],
) -> None:
    """Each of several ranks shows it some of the batches; all take all answers."""
    with in_eval_mode(teacher), FeatureExtractor(teacher, list(layers)) as tap:

        def said_from(start: int) -> Mapping[str, Tensor]:
            outputs = tap(inputs_from(start))
            said = {"logits": outputs.logits.to(torch.float32)}
            said |= {f"layer {path}": outputs.features[path].to(torch.float32) for path in layers}
            if outputs.counted is not None:
                said["counted"] = outputs.counted
            return said

        num_done = 0
        for said in group.all_gather_batches(range(0, num_samples, EVALUATION_BATCH), said_from):
            take(said)
            num_done += len(said["logits"])
            after_batch(num_done)


def _in_memory(show: _Show, layers: Mapping[str, torch.Size]) -> Whole:
    pieces: dict[str, list[Tensor]] = {}

    def take(said: Mapping[str, Tensor]) -> None:
        for name, piece in said.items():
            pieces.setdefault(name, []).append(piece)

    show(layers, take)
    return {name: padded_together(each) for name, each in pieces.items()}


def _from_files(
    kept: CacheSlot,
    show: _Show,
    layers: Mapping[str, torch.Size],
    samples: Samples,
    *,
    begin: Callable[[bool], None],
    group: ProcessGroup,
) -> Whole | None:
    """None where the files cannot be written; the teacher was asked in vain then.

    Several ranks write them of what fits into memory alone: one that fails in the middle of it would leave the others behind.
    """
    found = kept.cache.read(kept.cache_key)
    is_found = group.all_true(found is not None)
    begin(is_found)
    if is_found:
        return found
    if group.world_size > 1:
        if _num_bytes(layers, samples) > PRECOMPUTE_BYTES:
            return None
        whole = _in_memory(show, layers)
        if group.is_rank0:
            _write(kept, lambda take: take(whole), samples)
        return whole
    return _write(kept, partial(show, layers), samples)


def _write(kept: CacheSlot, show: Callable[[Callable[[Mapping[str, Tensor]], None]], None], samples: Samples) -> Whole | None:
    """What ``show`` gives, in files; None where they cannot be written."""
    longest = samples.inputs.shape[1] if _are_tokens(samples) else 0
    try:
        with kept.cache.write(kept.cache_key, num_samples=len(samples)) as rows:
            show(lambda said: rows.add({name: _lengthened(name, each, longest) for name, each in said.items()}))
        return kept.cache.read_back(kept.cache_key)
    except (OSError, DamagedOutputs) as error:
        logger.warning("What the teacher says is not kept for later jobs: %s", error)
        return None


def _lengthened(name: str, piece: Tensor, longest: int) -> Tensor:
    """As long as the split's longest text, where each token has a row: a file's rows are of one size."""
    has_tokens = name == "counted" or (name != "logits" and piece.dim() == 3)
    missing = longest - piece.shape[1] if has_tokens else 0
    return functional.pad(piece, (*[0, 0] * (piece.dim() - 2), 0, missing)) if missing > 0 else piece


def _looked_up(whole: Whole, indices: Tensor, *, device: torch.device) -> tuple[Mapping[str, Tensor], Tensor | None]:
    said = {name: _chosen(each, indices).to(device, non_blocking=True) for name, each in whole.items() if name != "logits"}
    counted = said.pop("counted", None)
    return {name.removeprefix("layer "): each for name, each in said.items()}, counted


def _num_bytes(layers: Mapping[str, torch.Size], samples: Samples) -> int:
    return 4 * len(samples) * sum(_most_values(shape, samples) for shape in layers.values())


def _most_values(shape: torch.Size, samples: Samples) -> int:
    """Of one sample's features; tokens (L, D) may be as many as the longest text has."""
    is_tokens = len(shape) == 2 and _are_tokens(samples)
    return max(shape[0], samples.inputs.shape[1]) * shape[1] if is_tokens else shape.numel()


def _are_tokens(samples: Samples) -> bool:
    return samples.inputs.dim() == 2 and not samples.inputs.is_floating_point()


def _chosen(whole: Tensor, indices: Tensor) -> Tensor:
    return whole.index_select(0, indices.to(whole.device))


def _asking_views(
    teacher: nn.Module,
    samples: Samples,
    layers: Mapping[str, torch.Size],
    *,
    preprocessing: Preprocessing,
    reorder: Callable[[Tensor], Tensor],
) -> TeacherOutputs:
    tap = FeatureExtractor(teacher, list(layers))

    def answers(batch: Batch) -> Outputs:
        inputs = samples.view_for(batch, preprocessing)
        with in_eval_mode(teacher):
            outputs = tap(inputs)
        return replace(outputs, logits=reorder(outputs.logits))

    return answers


def _asking(teacher: nn.Module, samples: Samples, layers: list[str]) -> TeacherFeatures:
    tap = FeatureExtractor(teacher, layers)

    def asked(indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        inputs = samples.batch(indices).inputs
        with in_eval_mode(teacher):
            outputs = tap(inputs)
        return outputs.features, outputs.counted

    return asked
