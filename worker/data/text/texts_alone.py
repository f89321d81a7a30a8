"""Texts without labels, or with an answer each; either may be chats. N samples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch

from service.formats import SplitArrays
from service.formats.chat import Chat
from service.spec.data import DatasetSpec
from worker.data.disk.stored import StoredInputs
from worker.data.errors import UnusableData
from worker.data.raw_inputs import RawSample
from worker.data.split import Split, SplitName, places_of


def samples_of_texts(chosen: Mapping[SplitName, SplitArrays], dataset: DatasetSpec | None = None) -> dict[SplitName, Split]:
    """Splits of texts with labels (N, 0), with answers and in rows as the ``dataset`` of a causal language model says.

    Raises:
        UnusableData: what it says is not for chats, or for chats alone.
    """
    answers = dataset.targets[0] if dataset is not None and dataset.targets else None
    packing = None if dataset is None else dataset.packing or _usual_packing(chosen["train"], answers)
    if dataset is not None:
        _check_chats(holds_chats(cast(Sequence[RawSample], chosen["train"].inputs)), dataset, is_packed=packing == "packed")
    return {
        part: Split(
            split.inputs if isinstance(split.inputs, StoredInputs) else list(split.inputs),
            torch.empty(len(split.inputs), 0),
            None if answers is None else _answers(split, answers),
            is_packed=packing in ("packed", "isolated"),
            is_isolated=packing == "isolated",
            overlong="cut" if dataset is None else dataset.overlong,
            part=part,
            places=places_of(split),
        )
        for part, split in chosen.items()
    }


def _answers(split: SplitArrays, column: str) -> Sequence[str]:
    if isinstance(split.inputs, StoredInputs):
        return replace(split.inputs, columns=(column,))
    return [str(each) if type(each) is not Chat else each for each in split.targets[column]]


def holds_chats(inputs: Sequence[RawSample]) -> bool:
    """Whether the inputs are chats, of which then each is one."""
    return len(inputs) > 0 and isinstance(inputs[0], Chat)


def _usual_packing(train: SplitArrays, answers: str | None) -> str:
    return "padded" if answers is not None or holds_chats(cast(Sequence[RawSample], train.inputs)) else "packed"


def _check_chats(are_chats: bool, dataset: DatasetSpec, *, is_packed: bool) -> None:
    """Checks of a file what :mod:`service.spec.data_fit` checks of an upload."""
    if are_chats and is_packed:
        raise UnusableData("chats are not packed, for what counts are the answers: set dataset.packing to padded or isolated")
    if is_packed and dataset.overlong == "refuse":
        raise UnusableData("packed texts are cut where rows end, and overlong refuses none: set packing to padded or isolated")
    if not are_chats and dataset.chat_template is not None:
        raise UnusableData(
            f"column {dataset.inputs[0]!r} holds texts, and dataset.chat_template writes chats: name a column of messages, or "
            "leave the template out"
        )
