"""Given teachers in the number format that the spec asks for, and how far that changes what they answer.

Invariant: what is rounded on its way into memory is measured, unless the caller does without, with one of the two networks in
memory at a time. M compared rows, W outputs.
"""

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from service.spec.cards.network import DtypeCard
from service.spec.job import TeacherSpec
from service.spec.warning_message import WarningMessage
from worker.data import Data
from worker.data.errors import UnfitInputs
from worker.errors import JobFault
from worker.job.starts import refuse_untuned
from worker.models import UnreadableNetwork
from worker.models.loading import FloatFormat, Loading, StoredWeights, choose_loading
from worker.models.quantised import UnquantisableNetwork, check_format, count_quantised
from worker.tasks import TASKS
from worker.trained import TrainedNetwork, load_teacher

COMPARED_ROWS = 64
"""Of the validation split, at most."""
_LEAST_AGREEMENT, _MOST_DIVERGENCE = 0.95, 0.05
"""A format that keeps less of the network than this is told; of a language model 4 bits diverge by about 0.004."""


def frozen_loading(
    folder: Path, spec: TeacherSpec, data: Data, *, device: torch.device, on_gpu: bool
) -> tuple[Loading, StoredWeights]:
    """How a teacher that is not trained is loaded, and what its files hold; ``on_gpu`` as of :func:`load_frozen`."""
    stored = StoredWeights.of(folder)
    return choose_loading(spec.dtype, stored.format, device, on_gpu=on_gpu, in_units=data.targets.units is not None), stored


def load_frozen(
    folder: Path,
    spec: TeacherSpec,
    data: Data,
    *,
    source: str,
    revision: str | None,
    pointer: str,
    device: torch.device,
    on_gpu: bool,
    measures: bool,
) -> TrainedNetwork:
    """Loads a teacher that is not trained, in its spec's format.

    With ``measures`` it is first run in its files' own format, on the CPU, where its weights stay the pages of their files: a
    device may have no room for it. Of numbers that have units of data it is run in fp32, which ``auto`` takes for them.

    ``on_gpu`` says what the job runs on, where a check tries it elsewhere.

    Raises:
        UnreadableNetwork: the folder cannot be loaded.
        JobFault: the teacher does not fit the data, or the format does not fit the teacher.
    """
    loading, weights = frozen_loading(folder, spec, data, device=device, on_gpu=on_gpu)
    stored = weights.format
    load = partial(load_teacher, folder, source=source, revision=revision, data=data, teaches=spec.targets)
    try:
        if loading.quantised is not None:
            check_format(loading.quantised, on_gpu=on_gpu)
        widest: FloatFormat = "fp32" if data.targets.units is not None else stored
        full = _some_outputs(load(loading=Loading(widest)), data) if measures and loading.rounds(widest) else None
        if full is not None:
            gc.collect()  # networks of the library are in cycles of references, and would stay beside the next
        teacher = load(loading=loading)
    except UnquantisableNetwork as error:
        message = f"The teacher {source} cannot be held in {loading.format}: {error}."
        raise JobFault("invalid_spec", message, details={"pointer": f"/{pointer}/dtype"}) from error
    except (UnreadableNetwork, JobFault) as error:
        if not isinstance(error.__cause__, UnfitInputs):
            refuse_untuned(folder, error, task=TASKS[data.task], targets=data.targets, source=source, place=pointer)
        raise
    if loading.format == "fp32":
        return teacher
    counted = count_quantised(teacher.network)
    card = DtypeCard(
        format=loading.format,
        files=stored,
        bytes=counted.num_bytes,
        layers=counted.layers if loading.quantised is not None else None,
        layers_left_out=counted.left_out if loading.quantised is not None else None,
    )
    if full is not None:
        card = card.model_copy(update={"compared_with": widest})
        card = _compared(card, full, _some_outputs(teacher, data), teacher, data)
    return replace(teacher, dtype=card, warnings=(*teacher.warnings, *_warnings(card, source=source)))


def _some_outputs(teacher: TrainedNetwork, data: Data) -> Tensor:
    """The outputs (M, W) of a teacher on some rows of the validation split."""
    split = data.splits["validation"]
    rows = torch.arange(min(COMPARED_ROWS, len(split)))
    # So few texts may not fill a row of tokens.
    samples = teacher.samples(split).first(COMPARED_ROWS) if split.is_packed else teacher.samples(split.at(rows))
    outputs = TASKS[data.task].compared_outputs(teacher.network, samples)
    return teacher.reorder(outputs).to("cpu")


def _compared(card: DtypeCard, full: Tensor, held: Tensor, teacher: TrainedNetwork, data: Data) -> DtypeCard:
    """The card with the difference of the outputs ``held`` from those of the ``full`` network."""
    if not bool(held.isfinite().any()):
        raise JobFault(
            "non_finite_loss",
            f"The outputs of the teacher {teacher.source} in {card.format} hold NaN or infinity, "
            f"those in {card.compared_with} do not.",
            hint="Take bf16, which has the range of fp32.",
        )
    found = TASKS[data.task].compare_outputs(full, held, data.targets, only=teacher.teaches)
    divergences = [each["kl_divergence"] for each in found.metrics.values() if "kl_divergence" in each]
    difference = (held - full).abs().nan_to_num(nan=0.0).max() / full.abs().nan_to_num(nan=0.0).max().clamp(min=1)
    return card.model_copy(
        update={
            "rows": len(full),
            "largest_difference": float(difference),
            "agreement": found.value,
            "kl_divergence": max(divergences, default=None),
        }
    )


def _warnings(card: DtypeCard, *, source: str) -> tuple[WarningMessage, ...]:
    """What to know of a teacher that answers otherwise than its files."""
    diverges = card.kl_divergence is not None and card.kl_divergence > _MOST_DIVERGENCE
    disagrees = card.agreement is not None and card.agreement < _LEAST_AGREEMENT
    if not (diverges or disagrees):
        return ()
    divergence = "" if card.kl_divergence is None else f", with a divergence of {card.kl_divergence:.3g}"
    agreement = "do not compare" if card.agreement is None else f"agree to {card.agreement:.4f}"
    held = ", as its files hold it" if card.compared_with == card.files else ""
    message = (
        f"The teacher {source} answers otherwise in {card.format} than in {card.compared_with}{held}: on {card.rows} "
        f"rows of validation its outputs {agreement}{divergence}. The student learns from these answers: take a wider dtype."
    )
    return (WarningMessage(code="dtype_difference", message=message),)
