"""Some samples of the training split as each network of a job reads them. B batch, L tokens, K words.

Invariant: what is shown is what the training computes, by the same preprocessing and in the first epoch's view; nothing is read
for the preview in a way of its own. Preprocessings are fitted to all data, as the job's are.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.spec import JobSpec, parse_spec
from service.spec.preview import (
    MOST_TOKENS,
    Preview,
    PreviewedSample,
    Read,
    ReadImage,
    ReadLabel,
    ReadSound,
    ReadText,
    ReadToken,
)
from worker.data import Preprocessing, Split
from worker.data.audio.waveform import clip_lengths
from worker.data.augment import EpochViews, View
from worker.data.disk.stored import Reading, StoredInputs
from worker.data.images.thumbnail import thumbnail
from worker.data.preprocessing import same_tokens, take
from worker.data.tensors import Inputs, in_memory, num_rows, only_tensor, read_rows, token_ids_of
from worker.data.text.language import ids_and_positions
from worker.data.text.tokenization import NO_TOKEN, framing, split_types
from worker.errors import StopAsked
from worker.job.job_data import load_job_data
from worker.job.labels import without_control
from worker.job.networks import Networks
from worker.job.reporting import PhaseReporter
from worker.job.roles import STUDENT, Role, by_name
from worker.preflight.outcome import located_at, outcome_of
from worker.preflight.sampling import row_tokens_of, rows_of, texts_of_rows
from worker.protocol import Assignment, Event, PhaseStarted, Previewed, Reporter, Stopped
from worker.targets import Target, Targets
from worker.tasks import TASKS

_SPACE = "▁"
"""Of SentencePiece, at the beginning of a token."""
_UNDECODED = "\N{REPLACEMENT CHARACTER}"


def preview(assignment: Assignment, reporter: Reporter) -> None:
    """Makes the preview of a job on the CPU. The last event is ``Previewed``, ``Failed`` or ``Stopped``, as a check's."""
    last: Event
    try:
        last = Previewed(_preview(assignment, reporter).model_dump(mode="json"))
    except StopAsked as stop:
        last = Stopped(reason=stop.request.reason)
    except Exception as error:  # noqa: BLE001 - the task's boundary: every error is recorded
        last = outcome_of(error)
    reporter.emit(last)


def _preview(assignment: Assignment, reporter: Reporter) -> Preview:
    if assignment.num_threads is not None:
        torch.set_num_threads(assignment.num_threads)
    phases = PhaseReporter(reporter)
    spec = parse_spec(assignment.spec)
    reporter.emit(PhaseStarted("checking", "Reading the data"))
    with located_at("/dataset/source"):
        data = load_job_data(spec, assignment.inputs, reading=Reading(assignment.folder))
    spec = without_control(spec, data)
    networks = Networks(
        spec,
        data,
        device=torch.device("cpu"),
        inputs=assignment.inputs,
        revisions=assignment.revisions,
        scratch=assignment.folder,
    )
    networks.adopt_classes()
    networks.settle_rows()

    def begin(role: Role) -> None:
        phases.check_stop()
        reporter.emit(PhaseStarted("checking", f"Reading as the {role} does"))

    return preview_of(networks, spec, assignment.preview or 1, begin=begin)


def preview_of(networks: Networks, spec: JobSpec, count: int, *, begin: Callable[[Role], None]) -> Preview:
    """Reads ``count`` samples as each network of a job does; ``begin`` is called before each. Raises LocatedError."""
    plan = networks.specs.plan
    samples: dict[Role, list[PreviewedSample]] = {}
    for role in (*plan.teachers, *plan.chain, STUDENT):
        begin(role)
        with located_at(f"/{networks.specs.path(role)}"):
            reader = _Reader(networks, role, spec)
        with located_at("/dataset/source"):
            samples[role] = list(reader.samples(count))
    return Preview(samples=by_name(samples), warnings=list(networks.data.warnings))


class _Reader:
    """Reads as one network does."""

    def __init__(self, networks: Networks, role: Role, spec: JobSpec) -> None:
        self._data, self._info = networks.data, TASKS[spec.task].info
        self._reads = networks.preprocessing_of(role)
        trained = role if networks.specs.is_trained(role) else STUDENT
        self._split = networks.training_split(trained)
        self._views = networks.views(trained)
        self._prepares = networks.preprocessing(trained)
        """What makes the tensors that are augmented, which a given teacher reads as well."""
        if not same_tokens(self._reads, self._prepares):
            self._views = None
        self._row_tokens = row_tokens_of(spec)

    def samples(self, count: int) -> Iterator[PreviewedSample]:
        """Evenly spaced samples of the training split; of texts that share rows the first rows."""
        if self._info.packs_rows and self._split.is_packed and self._split.answers is None:
            yield from self._packed(count)
            return
        for index in _evenly(len(self._split), count):
            yield self._sample(index)

    def _packed(self, count: int) -> Iterator[PreviewedSample]:
        # Texts that do not attend to each other are put where they fit best, which all of them decide.
        some = self._split if self._split.is_isolated else texts_of_rows(self._split, count, row_tokens=self._row_tokens)
        inputs, labels, _, mask = self._reads.read(some)
        for row in range(min(count, num_rows(inputs))):
            which = torch.tensor([row])
            ids, _ = ids_and_positions(read_rows(inputs, which))
            counted = labels[which] if mask is None else mask.select(which)
            text = _language_text(self._reads, ids[0], counted[0])
            yield PreviewedSample(place=f"train split, row {row} of tokens", labels={}, weight=None, read=text)

    def _sample(self, index: int) -> PreviewedSample:
        split, view = self._split, self._view(index)
        partner = share = None
        if view is not None and view.partners is not None and view.shares is not None:
            partner, share = split.place(int(view.partners[0])), float(view.shares[0])
        return PreviewedSample(
            place=split.place(index),
            labels=_labels(self._data.targets, split.labels[index : index + 1]),
            weight=None if split.weights is None else float(split.weights[index]),
            mixed_with=partner,
            share=share,
            read=self._read(index, view),
        )

    def _read(self, index: int, view: View | None) -> Read:
        which = torch.tensor([index])
        if view is not None:
            stored: Inputs = view.inputs
        else:
            alone = self._reads.read(_one(self._split, index))
            stored = in_memory(alone.inputs)
            if self._info.packs_rows:
                return _language_text(self._reads, ids_and_positions(stored)[0][0], alone.labels[0])
        inputs = self._reads(stored)
        if view is not None and self._views is not None:
            inputs = self._views.read(only_tensor(inputs), which, epoch=0)
        ids_of_texts = token_ids_of(inputs)
        if self._reads.own_tokenizer is not None and ids_of_texts is not None:
            return _text(self._reads.own_tokenizer, ids_of_texts[0][ids_of_texts[0] != NO_TOKEN])
        tensor, before = only_tensor(inputs)[0], only_tensor(stored)[0]
        if self._reads.rate is not None:
            seconds = int(clip_lengths(before[None])[0]) / self._reads.rate
            return ReadSound(rate=self._reads.rate, seconds=seconds, shape=list(tensor.shape))
        return ReadImage(
            shape=list(tensor.shape),
            lowest=float(tensor.min()),
            highest=float(tensor.max()),
            thumbnail=thumbnail(before, self._data.pixel_range),
        )

    def _view(self, index: int) -> View | None:
        views: EpochViews | None = self._views
        return None if views is None else views.stored(self._fetch, torch.tensor([index]), epoch=0)

    def _fetch(self, rows: Tensor) -> Tensor:
        return only_tensor(self._prepares.prepare(_raw(self._split, rows)))


def _evenly(size: int, count: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, size - 1, num=min(count, size))})


def _raw(split: Split, rows: Tensor) -> Any:
    inputs = take(split.inputs, rows.numpy())
    return inputs.read() if isinstance(inputs, StoredInputs) else inputs


def _one(split: Split, index: int) -> Split:
    """One sample of a split, in memory."""
    one = rows_of(split, np.array([index]))
    inputs = one.inputs.read() if isinstance(one.inputs, StoredInputs) else one.inputs
    answers = one.answers.read() if isinstance(one.answers, StoredInputs) else one.answers
    return replace(one, inputs=inputs, answers=answers)


def _text(tokenizer: Any, tokens: Tensor) -> ReadText:
    """Of tokens (L,) without padding, with their types."""
    ids, types = split_types(tokens)
    return ReadText(
        tokens=[
            ReadToken(id=number, text=_name(tokenizer, number), counts=False, type=kind)
            for number, kind in zip(ids[:MOST_TOKENS].tolist(), types[:MOST_TOKENS].tolist(), strict=True)
        ],
        unshown=max(0, len(ids) - MOST_TOKENS),
    )


def _language_text(reads: Preprocessing, ids: Tensor, counted: Tensor) -> ReadText:
    """Of a row (L,) and its loss mask (L,), without the padding after its end."""
    is_padding = (ids == framing(reads.own_tokenizer).pad) & ~counted
    length = len(ids)
    while length and bool(is_padding[length - 1]):
        length -= 1
    shown = min(length, MOST_TOKENS)
    return ReadText(
        tokens=[
            # Nothing predicts a row's first token.
            ReadToken(id=number, text=_name(reads.own_tokenizer, number), counts=counts and place > 0)
            for place, (number, counts) in enumerate(zip(ids[:shown].tolist(), counted[:shown].tolist(), strict=True))
        ],
        unshown=length - shown,
    )


def _name(tokenizer: Any, number: int) -> str:
    """What a token stands for: its text, or the name of a part of a character."""
    token = str(tokenizer.convert_ids_to_tokens(number))
    text = str(tokenizer.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if _UNDECODED in text:
        return token
    return f" {text}" if token.startswith(_SPACE) and not text.startswith(" ") else text


def _labels(targets: Targets, labels: Tensor) -> dict[str, ReadLabel]:
    """Of the labels (1,), (1, M) or (1, K) of one sample."""
    return {target.name: _label(target, targets.labels_of(labels, index)[0]) for index, target in enumerate(targets)}


def _label(target: Target, label: Tensor) -> ReadLabel:
    if target.classes is None:
        number = float(label) * target.scale + target.mean
        return None if math.isnan(number) else number
    if target.label_kind != "class":
        if not bool(target.is_known(label)):
            return None
        if target.is_multi_label:
            return [name for name, value in zip(target.classes, label.tolist(), strict=True) if value > 0]
        return dict(zip(target.classes, label.tolist(), strict=True))
    if label.dim():  # of each word, a class below -1 behind the last one
        return [None if place < 0 else target.classes[place] for place in label[label >= -1].tolist()]
    return None if int(label) < 0 else target.classes[int(label)]
