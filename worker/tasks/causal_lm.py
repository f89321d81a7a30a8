"""Causal language models, which predict each next token of a text. M tokens that count, V vocabulary.

Invariant: a token that a network predicts is one of its own tokenizer, so that outputs (M, 3), which are those of
:func:`worker.evaluation.tokens.predict_tokens`, hold the true tokens too, and labels say nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from textwrap import dedent
from typing import Literal

import torch
from torch import Tensor, nn

from service.formats import DataArrays, SplitArrays
from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.cards.evidence import TargetEvidence
from service.spec.data import DatasetSpec
from service.spec.inputs import Features, TokenizerSpec
from service.spec.methods import SequenceLevel, UniversalLogit
from service.spec.report import Report
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, Split, SplitName, UnusableData
from worker.data.prepared import PreparedSamples
from worker.data.samples import Samples
from worker.data.tensors import Inputs
from worker.data.text.chat_template import template_of
from worker.data.text.language import ids_and_positions
from worker.data.text.language_preprocessing import (
    USUAL_ROW_TOKENS,
    LanguagePreprocessing,
    chat_settings,
    same_chats,
    train_language_preprocessing,
)
from worker.data.text.texts_alone import holds_chats, samples_of_texts
from worker.data.text.tokenization import same_tokenizer
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import JobFault
from worker.eval_mode import in_eval_mode
from worker.evaluation.evaluate import EvaluationResult
from worker.evaluation.evidence import GuessComparison, Interval
from worker.evaluation.metrics import agreement_metrics
from worker.evaluation.precision import Precision
from worker.evaluation.token_evidence import compare_tokens_with_guess, paired_token_interval, token_evidence, token_frequencies
from worker.evaluation.token_metrics import PREDICTED, token_agreement, token_metrics, token_score
from worker.evaluation.tokens import BATCH_TOKENS, first_logits, predict_tokens
from worker.methods.output_head import tokens_of_chunk
from worker.models import LoadedNetwork
from worker.models.language_models import LanguageModels
from worker.models.language_network import LanguageNetwork
from worker.targets import Targets
from worker.tasks.task import Agreement, CardWords, Distillation, Measurement, Task, Written
from worker.tasks.texts import NO_TOKENIZER
from worker.training.causal_lm import (
    LanguageTeacher,
    NextTokenCriterion,
    check_generation_fits,
    continuations,
    generate_texts,
    language_criterion,
)
from worker.training.chats import check_answers, check_chats
from worker.training.criterion import BuildCriterion, Criterion

_FREQUENCY_TEXTS = 2_000
"""Of the training split, for the frequencies of tokens."""
_COMPARED_TOKENS = 16
_USAGE = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModelForCausalLM.from_pretrained("student")
    prompt = tokenizer("Once", return_tensors="pt", add_special_tokens=False)
    print(tokenizer.decode(student.generate(**prompt, max_new_tokens=20)[0]))
    """
_USAGE_OF_CHATS = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModelForCausalLM.from_pretrained("student")
    messages = [{"role": "user", "content": "Hello"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = student.generate(**prompt, max_new_tokens=20)[0, prompt["input_ids"].shape[1] :]
    print(tokenizer.decode(answer, skip_special_tokens=True))
    """


class CausalLM(Task):
    """Language models, whose targets are tokens."""

    name = "causal-lm"
    network = LanguageModels("causal-lm")

    def samples(
        self, dataset: DatasetSpec, arrays: DataArrays, chosen: Mapping[SplitName, SplitArrays]
    ) -> tuple[dict[SplitName, Split], Targets]:
        return samples_of_texts(chosen, dataset), Targets(())

    def fit_inputs(self, loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
        reads = _language(loaded.preprocessing)
        # A network's own limit may be the length of a book: rows of that length would not fit into memory.
        length = min(reads.max_length, data.row_tokens or USUAL_ROW_TOKENS)
        return replace(reads, max_length=length, **chat_settings(data))

    def settle_rows(self, data: Data, readers: Sequence[Preprocessing]) -> Data:
        # Networks of one tokenizer read the same rows, which none of them may find too long.
        first, *others = map(_language, readers)
        if not all(same_tokenizer(first.tokenizer, reads.tokenizer) for reads in others):
            return data
        longest = min(first.max_length, *(reads.max_length for reads in others))
        data = replace(data, row_tokens=min(longest, data.row_tokens or USUAL_ROW_TOKENS))
        if data.chat_template is not None or not holds_chats(data.splits["train"].inputs):
            return data
        templates = [template_of(reads.tokenizer) for reads in (first, *others)]
        known = {template for template in templates if template is not None}
        # One that was trained on texts alone learns chats by the other's template.
        return replace(data, chat_template=known.pop()) if len(known) == 1 and None in templates else data

    def check_method(self, spec: JobSpec, student: Preprocessing, teacher: Preprocessing) -> None:
        check_generation_fits(spec.method, _language(student).max_length)
        if same_tokenizer(student.own_tokenizer, teacher.own_tokenizer):
            if not same_chats(_language(student), _language(teacher)):
                raise JobFault(
                    "invalid_spec",
                    "Student and teacher have one tokenizer, and write chats by two templates: they read other tokens.",
                    hint="Give dataset.chat_template, the teacher's say.",
                    details={"pointer": "/dataset/chat_template"},
                )
            return
        if not isinstance(spec.method, UniversalLogit):
            raise JobFault(
                "invalid_spec",
                "The student's tokenizer is not its teacher's: other tokens, other ids, or other special tokens.",
                hint="Take the method uld, which compares texts that are cut differently, or networks of one tokenizer.",
                details={"pointer": "/method"},
            )
        if spec.dataset.packing in ("packed", "isolated"):
            raise JobFault(
                "invalid_spec",
                "The student's tokenizer is not its teacher's, so that each row must be one text.",
                hint="Set dataset.packing to padded.",
                details={"pointer": "/dataset/packing"},
            )

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

    def teacher_warnings(self, loaded: LoadedNetwork, data: Data, *, source: str) -> tuple[WarningMessage, ...]:
        own = template_of(_language(loaded.preprocessing).tokenizer)
        if not holds_chats(data.splits["train"].inputs) or own in (None, data.chat_template) or data.chat_template is None:
            return ()
        message = (
            f"The teacher {source} comes with a chat template of its own, and dataset.chat_template writes chats otherwise: it "
            "may answer worse than by its own"
        )
        return (WarningMessage(code="other_chat_template", message=message),)

    is_chosen_by_loss = True
    """Perplexity follows from the loss, which is a finer measure than the token accuracy."""
    rows_at_once = 64
    """Packed texts need some, to fill a row."""

    teacher_runs_each_step = True

    def chunk(self, network: nn.Module) -> tuple[int, int] | None:
        width = len(_language_network(network).head.weight)
        return width, tokens_of_chunk(width)

    def step_outputs(self, network: nn.Module, inputs: Inputs) -> Tensor:
        return _language_network(network).head(self.infer(network, inputs))

    def infer(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """The hidden states; logits are computed of some tokens at a time."""
        return _language_network(network).hidden(*ids_and_positions(inputs))

    def evaluation_batch(self, inputs: Inputs) -> int:
        return max(1, BATCH_TOKENS // ids_and_positions(inputs)[0].shape[1])

    def label_criterion(self, network: nn.Module, samples: Samples, targets: Targets) -> Criterion:
        check_answers(samples, learner="a network without a teacher")
        return NextTokenCriterion(_language_network(network), samples)

    def student_criterion(self, distillation: Distillation) -> BuildCriterion:
        """The teacher computes its outputs in each step; texts that it generates come first."""
        method, samples = distillation.spec.method, distillation.samples
        teacher = _language_teacher(distillation.teacher, distillation.teacher_preprocessing)
        if not same_tokenizer(distillation.preprocessing.own_tokenizer, distillation.teacher_preprocessing.own_tokenizer):
            teacher = replace(teacher, samples=distillation.teacher_samples())
        if _language(distillation.preprocessing).reads_chats:
            check_chats(method, samples, teacher)
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

    def predict(
        self,
        network: nn.Module,
        samples: Samples,
        *,
        precision: Precision | None = None,
        teacher_outputs: Tensor | None = None,
        after_batch: Callable[[int], None] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Tensor:
        precision = precision or Precision(samples.device, None)
        with in_eval_mode(network):
            return predict_tokens(_language_network(network), samples, precision=precision, after_batch=after_batch, group=group)

    def can_score(self, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> bool:
        return True

    def score(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        score, loss = token_score(outputs).tolist()
        return EvaluationResult(score=score, loss=loss)

    def score_by_teacher(
        self, outputs: Tensor, teacher_outputs: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> EvaluationResult:
        return self.score(outputs, teacher_outputs, targets)  # the texts themselves say what is right

    def score_name(self, targets: Targets) -> Literal["accuracy", "score"]:
        return "accuracy"

    def score_is_share(self, targets: Targets) -> bool:
        return True

    def measure(self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Measurement:
        metrics = {PREDICTED: token_metrics(outputs)}
        return Measurement(self.score(outputs, labels, targets), metrics, rows=len(outputs), interval=None)

    def agreement(self, teacher: Tensor, student: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Agreement:
        return Agreement(token_agreement(teacher, student), {})

    def evidence(
        self, outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
    ) -> dict[str, TargetEvidence]:
        return {PREDICTED: token_evidence(outputs)}

    def written(self, network: nn.Module, preprocessing: Preprocessing, split: Split, *, device: torch.device) -> list[Written]:
        reads = _language(preprocessing)
        # Each text in a row of its own, so that its beginning is the prompt.
        alone = replace(split, is_packed=False, is_isolated=False, read=PreparedSamples())
        prompts = continuations(_language_network(network), Samples.of(alone, reads, device=device), reads)
        return [Written(*each) for each in prompts]

    def paired_interval(self, first: Tensor, second: Tensor, labels: Tensor, targets: Targets) -> Interval | None:
        return paired_token_interval(first, second)

    def compare_with_guess(
        self,
        outputs: Tensor,
        labels: Tensor,
        targets: Targets,
        *,
        network: nn.Module,
        training_rows: Callable[[int], Samples],
        only: Collection[str] | None = None,
    ) -> list[GuessComparison]:
        rows, vocabulary = training_rows(_FREQUENCY_TEXTS), len(_language_network(network).head.weight)
        batch = rows.batch(torch.arange(len(rows)))
        predicted = ids_and_positions(batch.inputs)[0][:, 1:][batch.labels[:, 1:].bool()]
        return [compare_tokens_with_guess(outputs, token_frequencies(predicted, vocabulary))]

    def compared_outputs(self, network: nn.Module, samples: Samples) -> Tensor:
        """The logits (M, V) of the first tokens, as many as fit into some memory."""
        return first_logits(_language_network(network), samples)

    def compare_outputs(self, full: Tensor, held: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> Agreement:
        # A few tokens at a time: the divergence is computed in float64, from several tensors of all logits.
        parts = [
            (len(ours), agreement_metrics(ours, theirs))
            for ours, theirs in zip(*(torch.split(each, _COMPARED_TOKENS) for each in (full, held)), strict=True)
        ]
        metrics = {name: sum(count * each[name] for count, each in parts) / len(full) for name in parts[0][1]}
        return Agreement(metrics["agreement"], {PREDICTED: metrics})

    def words(self, report: Report, *, is_own: bool) -> CardWords:
        agreement = "Its tokenizer is not its teacher's, so the two do not compare token by token."
        if report.agreement is not None:
            agreement = f"It agrees with its teacher on {report.agreement:.2%} of the test tokens."
        return CardWords(
            score="token_accuracy",
            agreement=agreement,
            data="The loss and the perplexity are per token of `student/tokenizer.json`.",
            usage=dedent(_USAGE_OF_CHATS if report.data.chats else _USAGE).rstrip(),
        )


def _language_teacher(network: nn.Module, preprocessing: Preprocessing) -> LanguageTeacher:
    """A teacher with the student's tokenizer."""
    reads = _language(preprocessing)
    return LanguageTeacher(_language_network(network), reads.framing, reads.max_length)


def _language(preprocessing: Preprocessing) -> LanguagePreprocessing:
    if not isinstance(preprocessing, LanguagePreprocessing):
        raise TypeError(f"{type(preprocessing).__name__} makes no rows of tokens")
    return preprocessing


def _language_network(network: nn.Module) -> LanguageNetwork:
    if not isinstance(network, LanguageNetwork):
        raise TypeError(f"{type(network).__name__} is not a language model")
    return network
