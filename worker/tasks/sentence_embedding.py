"""Embeddings of texts, learnt from a teacher's."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from worker.data import Data, Split
from worker.tasks.labelled import LabelledTask


class SentenceEmbedding(LabelledTask):
    """Text encoders, whose labels are their teacher's embeddings (N, D): the one target of each sample."""

    def label_by_teacher(self, data: Data, outputs: Callable[[Split], Tensor]) -> Data:
        # Those of the training split are the teacher's outputs that the criterion reads.
        splits = {
            name: split if name == "train" else replace(split, labels=outputs(split).cpu()) for name, split in data.splits.items()
        }
        return replace(data, splits=splits)
