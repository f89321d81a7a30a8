"""The networks of a preflight: each is built once; preprocessings are fitted on a few samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.spec import JobSpec
from service.spec.shapes import TokenShape
from service.spec.tasks import TASKS
from worker.data import Data, Preprocessing, SplitName
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.samples import Samples
from worker.data.tensors import slice_rows
from worker.data.text import TextPreprocessing
from worker.job.networks import Networks
from worker.job.roles import Role
from worker.preflight.outcome import located_at
from worker.preflight.sampling import STEP_SAMPLES, SampledData, count_characters
from worker.trained import TrainedNetwork


class PreflightNetworks(Networks):
    """The job's networks over splits of a few samples."""

    def __init__(
        self, spec: JobSpec, rows: SampledData, *, device: torch.device, inputs: Mapping[str, Path], scratch: Path
    ) -> None:
        super().__init__(spec, rows.step_data, device=device, inputs=inputs, scratch=scratch)
        self._sampled = rows
        self._built: dict[Role, nn.Module] = {}

    def build(self, role: Role) -> nn.Module:
        """Returns the same network at each call: large ones take seconds to initialise."""
        if role not in self._built:
            self._built[role] = super().build(role)
        return self._built[role]

    def load_fitted(self, role: Role, whole: Data) -> TrainedNetwork:
        """Loads a given teacher, fitted to the whole data: two samples show neither their range nor all lengths of clips.

        Of texts, whose longest are among the samples of a step, it is fitted to those.
        """
        if TASKS[whole.task].input_kind == "text":
            return self.load_pretrained(role)
        step_data, self.data = self.data, whole
        try:
            return self.load_pretrained(role)
        finally:
            self.data = step_data

    def preprocessing(self, role: Role) -> Preprocessing:
        """Fitted on more samples than a step reads.

        A tokenizer that is trained on a part of the texts reports the vocabulary size of the spec, which the whole would fill.
        """
        if role in self._preprocessings:
            return self._preprocessings[role]
        spec = self.teachers.get(role) or self.spec.student
        place = f"/{self.spec_path(role)}/tokenizer" if spec.tokenizer is not None else "/dataset/source"
        step_data, self.data = self.data, self._sampled.fitting_data
        try:
            with located_at(place):
                reads = super().preprocessing(role)
        finally:
            self.data = step_data
        if spec.tokenizer is not None and not self._sampled.holds_all_texts:
            reads = self._preprocessings[role] = _at_full_vocabulary(reads, spec.tokenizer.vocab_size)
        return reads

    def samples(self, role: Role, split: SplitName) -> Samples:
        """At most one batch, however many rows the packed texts make."""
        samples = super().samples(role, split)
        if not self.data.targets.are_tokens:
            return samples
        return replace(samples, inputs=slice_rows(samples.inputs, 0, STEP_SAMPLES), labels=samples.labels[:STEP_SAMPLES])


@dataclass(frozen=True)
class _TextsAtFullVocabulary(TextPreprocessing):
    vocabulary: int = 0

    def input_shape(self, inputs: Any) -> TokenShape:
        return replace(super().input_shape(inputs), vocabulary=self.vocabulary)


@dataclass(frozen=True)
class _RowsAtFullVocabulary(LanguagePreprocessing):
    vocabulary: int = 0

    def input_shape(self, inputs: Any) -> TokenShape:
        return replace(super().input_shape(inputs), vocabulary=self.vocabulary)


def _at_full_vocabulary(reads: Preprocessing, vocabulary: int) -> Preprocessing:
    match reads:
        case TextPreprocessing():
            return _TextsAtFullVocabulary(reads.tokenizer, reads.max_length, vocabulary=vocabulary)
        case LanguagePreprocessing():
            return _RowsAtFullVocabulary(reads.tokenizer, reads.max_length, vocabulary=vocabulary)
    return reads


def count_rows(reads: Preprocessing, rows: SampledData) -> tuple[int, bool]:
    """Rows of tokens in the packed training split, and whether they are counted rather than estimated."""
    part = rows.fitting_data.splits["train"]
    made = len(reads.rows(part)) if isinstance(reads, LanguagePreprocessing) else len(part)
    if rows.holds_all_texts:
        return made, True
    return max(1, round(made * rows.characters / count_characters(part))), False
