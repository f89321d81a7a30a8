"""Causal language models, which predict each next token of a text."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from service.formats import DataArrays, SplitArrays
from service.spec.architectures import Architecture
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.language_fit import shares_tokenizer
from service.spec.methods import SequenceLevel
from worker.data import Data, Preprocessing, Split, SplitName, UnusableData
from worker.data.language_preprocessing import train_language_preprocessing
from worker.data.samples import Samples
from worker.data.texts_alone import samples_of_texts
from worker.evaluation.evaluate import predict, score_outputs
from worker.models.language_network import LanguageNetwork
from worker.targets import Targets
from worker.tasks.task import Distillation, Task
from worker.tasks.texts import NO_TOKENIZER
from worker.training.causal_lm import LanguageTeacher, NextTokenCriterion, generate_texts, language_criterion
from worker.training.criterion import BuildCriterion, Criterion
from worker.training.validation import Validation, ValidationTeacher


class CausalLM(Task):
    """Language models, whose targets are tokens."""

    name = "causal-lm"

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        answers = dataset.targets[0] if dataset.targets else None
        return samples_of_texts(chosen, answers=answers, is_packed=dataset.packing == "packed"), Targets((), are_tokens=True)

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        if tokenizer is not None:
            return train_language_preprocessing(data, tokenizer)
        if teachers is None:
            raise UnusableData(NO_TOKENIZER)
        return teachers

    def label_criterion(self, network: nn.Module, samples: Samples, targets: Targets) -> Criterion:
        return NextTokenCriterion(_language_network(network), samples)

    def student_criterion(self, distillation: Distillation) -> BuildCriterion:
        """The teacher computes its outputs in each step; texts that it generates come first."""
        method, samples = distillation.spec.method, distillation.samples
        teacher = LanguageTeacher.of(distillation.teacher, distillation.teacher_preprocessing)
        if not shares_tokenizer(distillation.spec):
            teacher = replace(teacher, samples=distillation.teacher_samples())
        generated = None
        if isinstance(method, SequenceLevel):
            what = f"the texts of the {distillation.role}'s teacher for {len(samples):,} rows, once for all epochs"
            report = distillation.report(f"Generating {what}")
            generated = generate_texts(
                method, teacher, samples, seed=distillation.seed, after_batch=report, group=distillation.group
            )

        def build(network: nn.Module, samples: Samples) -> Criterion:
            return language_criterion(method, _language_network(network), samples, teacher, generated=generated)

        return build

    def validation(self, samples: Samples, targets: Targets, *, teacher: ValidationTeacher | None = None) -> Validation:
        score = partial(score_outputs, labels=samples.labels, targets=targets)
        # The perplexity follows from the loss, which is a finer measure than the accuracy.
        return Validation(samples, predict, score, "accuracy", is_chosen_by_loss=True)


def _language_network(network: nn.Module) -> LanguageNetwork:
    if not isinstance(network, LanguageNetwork):
        raise TypeError(f"{type(network).__name__} is not a language model")
    return network
