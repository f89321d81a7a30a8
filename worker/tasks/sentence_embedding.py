"""Embeddings of texts, learnt from a teacher's."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from service.formats import DataArrays, SplitArrays
from service.spec.architectures import Architecture
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, Split, SplitName
from worker.data.data_warnings import few_texts_warnings
from worker.data.texts_alone import samples_of_texts
from worker.targets import Targets
from worker.tasks.labelled import LabelledTask
from worker.tasks.texts import choose_text_preprocessing


class SentenceEmbedding(LabelledTask):
    """Text encoders, whose labels are their teacher's embeddings (N, D): the one target of each sample."""

    name = "sentence-embedding"

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        return samples_of_texts(chosen), Targets((), are_embeddings=True)

    def learns_without_teacher(self, labels: Tensor) -> bool:
        return True

    def score_warnings(self, split: Split, targets: Targets) -> Iterator[WarningMessage]:
        return few_texts_warnings(split)

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        reads = choose_text_preprocessing(data, tokenizer=tokenizer, teachers=teachers)
        return reads if tokenizer is None else replace(reads, is_embedded=True)

    def label_by_teacher(self, data: Data, outputs: Callable[[Split], Tensor]) -> Data:
        # Those of the training split are the teacher's outputs that the criterion reads.
        splits = {
            name: split if name == "train" else replace(split, labels=outputs(split).cpu()) for name, split in data.splits.items()
        }
        return replace(data, splits=splits)
