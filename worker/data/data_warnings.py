"""What of a dataset takes no part in a job, and what makes a score of it worth less: told before anything trains.

The same warnings stand in the job's check and in its report. Every one has its count and a first place. N samples.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.formats.dataset_warnings import listed
from service.spec import JobSpec
from service.spec.effect import spec_warnings, split_warnings
from service.spec.tasks import TASKS
from service.spec.warning_message import WarningMessage
from worker.data.audio.clips import seconds_of
from worker.data.dataset import Data
from worker.data.disk.stored import StoredInputs
from worker.data.raw_inputs import sample_key
from worker.data.split import Split, SplitName
from worker.targets import Target, Targets

_SCORED: tuple[SplitName, ...] = ("validation", "test")
_KEY = np.dtype("S16")
"""NumPy compares all 16 bytes of such a value, and leaves zeros at its end out where it gives one to Python."""
_LEAST_EMBEDDED = 3
"""Two texts have one pair, whose similarity correlates with nothing."""


class TaskWarnings(Protocol):
    """What of a task is warned of in its data; :class:`worker.tasks.Task` is one."""

    def label_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        """Rows of the split without a label, and classes without a row."""

    def score_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        """Why a score of the split, validation or test, could not tell a good network from a bad one."""


def with_warnings(data: Data, spec: JobSpec, *, task: TaskWarnings) -> Data:
    """The data with all warnings of this job: of its spec, of their file, of the splits."""
    found = [
        *spec_warnings(spec),
        *data.warnings,
        *split_warnings(spec.dataset, data.rows_by_split),
        *(warning for split in data.splits.values() for warning in task.label_warnings(split.own, data.targets)),
        *(warning for part in _SCORED for warning in task.score_warnings(data.splits[part], data.targets)),
        *_repeated_rows(data),
        *_cut_clips(data),
    ]
    return replace(data, warnings=tuple(found))


def label_warnings(split: Split, targets: Targets) -> Iterator[WarningMessage]:
    """Of each target: rows of the split without a value, and classes without a row where classes are scored."""
    for index, (target, is_known) in enumerate(zip(targets, targets.known(split.labels), strict=True)):
        if missing := int((~is_known).sum()):
            use = "teach by a teacher's outputs alone" if split.part == "train" else "are not scored"
            message = (
                f"{missing:,} of {len(split):,} rows of the {split.name} have no value of {target.name!r} and {use}; the first: "
                f"{split.place(int((~is_known).int().argmax()))}"
            )
            yield WarningMessage(code="labels_missing", message=message)
        if split.part != "train" and missing < len(split):
            labels = targets.labels_of(split.labels, index)
            yield from _unseen_classes(split, target, labels[target.is_known(labels)])


def _unseen_classes(split: Split, target: Target, labels: Tensor) -> Iterator[WarningMessage]:
    if target.classes is None:
        return
    counts = target.count(labels)
    unseen = [name for name, count in zip(target.classes, counts.tolist(), strict=False) if not count]
    if unseen:
        message = (
            f"{len(unseen)} of the {len(target.classes)} classes of {target.name!r} have no row in the {split.name}, whose "
            f"scores say nothing of them: {listed(unseen)}"
        )
        yield WarningMessage(code="class_without_rows", message=message)


def equal_numbers_warnings(split: Split, targets: Targets) -> Iterator[WarningMessage]:
    """Targets whose numbers are all equal in a split, so that their R² says nothing."""
    for index, target in enumerate(targets):
        numbers = targets.labels_of(split.labels, index)
        numbers = numbers[target.is_known(numbers)]
        if target.classes is None and len(numbers) and bool((numbers == numbers[0]).all()):
            message = (
                f"all {len(numbers):,} values of {target.name!r} in the {split.name} are equal: R² is 0 of any network that "
                "does not predict exactly that; add rows of other values"
            )
            yield WarningMessage(code="score_undefined", message=message)


def few_texts_warnings(split: Split) -> Iterator[WarningMessage]:
    """A split of embedded texts with too few pairs to correlate."""
    if len(split) < _LEAST_EMBEDDED:
        message = (
            f"the {split.name} has {len(split)} texts, and the score, the correlation of all pairs' similarities, is 0 of "
            f"fewer than {_LEAST_EMBEDDED}: add texts to it"
        )
        yield WarningMessage(code="score_undefined", message=message)


def _repeated_rows(data: Data) -> Iterator[WarningMessage]:
    """Rows of validation and test that were learnt from: exactly equal inputs."""
    train = data.splits["train"]
    seen = _keys(train)
    order = np.argsort(seen, kind="stable")
    seen = seen[order]
    for part in _SCORED:
        split = data.splits[part]
        keys = _keys(split)
        places = np.searchsorted(seen, keys)
        is_seen = np.append(seen, b"")[places] == keys
        if is_seen.any():
            index = int(is_seen.argmax())
            twin = int(order[places[index]])
            message = (
                f"{np.count_nonzero(is_seen):,} of {len(split):,} rows of the {split.name} are in the training data too, such as "
                f"{split.place(index)}, which is {train.place(twin)}: their score shows what was learnt by heart; take them out "
                "of one of the two"
            )
            yield WarningMessage(code="rows_in_train", message=message)


def _keys(split: Split) -> NDArray[np.bytes_]:
    """(N,), equal for equal inputs with equal answers, by which others hardly ever are."""
    if isinstance(split.inputs, StoredInputs):
        return split.inputs.digests().view(_KEY)
    if isinstance(split.inputs, Tensor):
        contents: Iterable[Any] = split.inputs.contiguous().flatten(1).view(torch.uint8).numpy()
    else:
        answers: Sequence[str | None] = split.answers or [None] * len(split.inputs)
        both = zip(map(sample_key, split.inputs), answers, strict=True)
        contents = (repr(each).encode() for each in both)
    keys = b"".join(hashlib.blake2b(each, digest_size=_KEY.itemsize).digest() for each in contents)
    return np.frombuffer(keys, dtype=_KEY)


def _cut_clips(data: Data) -> Iterator[WarningMessage]:
    for split in data.splits.values():
        if TASKS[data.task].input_kind != "audio":
            continue
        seconds = seconds_of(split.inputs).tolist()
        cut = [index for index, each in enumerate(seconds) if each > data.clip_seconds]
        if cut:
            message = (
                f"{len(cut):,} of {len(split):,} clips of the {split.name} are longer than dataset.clip_seconds, and cut to "
                f"{data.clip_seconds:g} s; the longest has {max(seconds):.1f} s: {split.place(seconds.index(max(seconds)))}"
            )
            yield WarningMessage(code="clips_cut", message=message)
