"""The networks of a job that is tried: each built once, reading what was measured on a few samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.spec import JobSpec
from service.spec.shapes import TokenShape
from worker.data import Preprocessing, SplitName
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.samples import Samples
from worker.data.text import TextPreprocessing
from worker.job.networks import Networks
from worker.job.roles import Role
from worker.preflight.outcome import at
from worker.preflight.sampling import STEPPED, FewRows, count_characters


class FewNetworks(Networks):
    """Networks whose splits are the few samples that are stepped on."""

    def __init__(self, spec: JobSpec, rows: FewRows, *, device: torch.device, inputs: Mapping[str, Path], scratch: Path) -> None:
        super().__init__(spec, rows.stepped, device=device, inputs=inputs, scratch=scratch)
        self._rows = rows
        self._built: dict[Role, nn.Module] = {}

    def build(self, role: Role) -> nn.Module:
        """The same one for a role whenever it is asked for: large ones take seconds to initialise."""
        if role not in self._built:
            self._built[role] = super().build(role)
        return self._built[role]

    def preprocessing(self, role: Role) -> Preprocessing:
        """Measured on more than the few. A tokenizer of some of the texts says that it has as many tokens as it was asked to."""
        if role in self._preprocessings:
            return self._preprocessings[role]
        spec = self.teachers.get(role) or self.spec.student
        place = f"/{self.spec_path(role)}/tokenizer" if spec.tokenizer is not None else "/dataset/source"
        stepped, self.data = self.data, self._rows.measured
        try:
            with at(place):
                reads = super().preprocessing(role)
        finally:
            self.data = stepped
        if spec.tokenizer is not None and not self._rows.holds_all_texts:
            reads = self._preprocessings[role] = _as_asked(reads, spec.tokenizer.vocab_size)
        return reads

    def samples(self, role: Role, split: SplitName) -> Samples:
        """No more than one batch, however many rows the packed texts made."""
        samples = super().samples(role, split)
        if not self.data.targets.are_tokens:
            return samples
        return replace(samples, inputs=samples.inputs[:STEPPED], labels=samples.labels[:STEPPED])


@dataclass(frozen=True)
class _TextsAsAsked(TextPreprocessing):
    vocabulary: int = 0

    def input_shape(self, inputs: Any) -> TokenShape:
        return replace(super().input_shape(inputs), vocabulary=self.vocabulary)


@dataclass(frozen=True)
class _RowsAsAsked(LanguagePreprocessing):
    vocabulary: int = 0

    def input_shape(self, inputs: Any) -> TokenShape:
        return replace(super().input_shape(inputs), vocabulary=self.vocabulary)


def _as_asked(reads: Preprocessing, vocabulary: int) -> Preprocessing:
    match reads:
        case TextPreprocessing():
            return _TextsAsAsked(reads.tokenizer, reads.max_length, reads.is_embedded, vocabulary=vocabulary)
        case LanguagePreprocessing():
            return _RowsAsAsked(reads.tokenizer, reads.max_length, vocabulary=vocabulary)
    return reads


def count_rows(reads: Preprocessing, rows: FewRows) -> tuple[int, bool]:
    """Rows of tokens that the packed training split makes, and whether they are counted rather than estimated."""
    part = rows.measured.splits["train"]
    made = len(reads.rows(part)) if isinstance(reads, LanguagePreprocessing) else len(part)
    if rows.holds_all_texts:
        return made, True
    return max(1, round(made * rows.characters / count_characters(part))), False
