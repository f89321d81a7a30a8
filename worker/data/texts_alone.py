"""Texts without labels, or with an answer each. N samples."""

from collections.abc import Mapping

import torch

from service.formats import SplitArrays
from worker.data.dataset import Split, SplitName, places_of


def samples_of_texts(
    chosen: Mapping[SplitName, SplitArrays], *, answers: str | None = None, is_packed: bool = False
) -> dict[SplitName, Split]:
    """Splits of texts with labels (N, 0); ``answers`` names the column that holds the answers to them."""
    return {
        part: Split(
            list(split.inputs),
            torch.empty(len(split.inputs), 0),
            None if answers is None else list(map(str, split.targets[answers])),
            is_packed=is_packed,
            part=part,
            places=places_of(split),
        )
        for part, split in chosen.items()
    }
