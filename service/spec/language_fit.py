"""Checks whether the parts of a spec for causal language models fit each other. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.architectures import TransformersNetwork
from service.spec.job import JobSpec
from service.spec.methods import OF_TOKENS, OnPolicy, SequenceLevel, SumOfTerms

LEAST_PROMPT = 2
"""Tokens of a row that are left for a prompt beside its completion: one, and one that the tokenizer may put before it."""
NOT_ISOLATED = ("opt",)
"""Model types that do not tell by their positions where a text of a row begins."""
_FOR_TOKENS = "forward-kl, reverse-kl, jsd, sequence, on-policy or uld"


def language_faults(spec: JobSpec) -> list[FieldError]:
    """Finds every fault of a job for a language model: methods for other tasks, tokenizers that do not match."""
    return [
        *_teacher_faults(spec),
        *_other_method_faults(spec),
        *_tokenizer_faults(spec),
        *_written_faults(spec),
        *_isolation_faults(spec),
    ]


def shares_tokenizer(spec: JobSpec) -> bool:
    """Whether student and teacher read the same tokens."""
    return spec.student.tokenizer is None or spec.student.tokenizer == spec.first_teacher.tokenizer


def _teacher_faults(spec: JobSpec) -> Iterator[FieldError]:
    if len(spec.teachers) > 1:
        yield FieldError(pointer="", message="a causal-lm has one teacher: leave one alone in /teacher")


def _other_method_faults(spec: JobSpec) -> Iterator[FieldError]:
    if isinstance(spec.method, SumOfTerms):
        yield FieldError(pointer="/method/terms", message=f"terms are not summed for {spec.task}: take one of {_FOR_TOKENS}")
    elif spec.method.name not in OF_TOKENS:
        message = f"{spec.method.name} compares outputs of whole samples, and {spec.task} predicts tokens: take {_FOR_TOKENS}"
        yield FieldError(pointer="/method/name", message=message)


def _tokenizer_faults(spec: JobSpec) -> Iterator[FieldError]:
    if shares_tokenizer(spec) or isinstance(spec.method, SumOfTerms):
        return
    if spec.method.name != "uld":
        message = (
            f"{spec.method.name} compares token by token, with one tokenizer: leave the student's out, or take the method uld"
        )
        yield FieldError(pointer="/student/tokenizer", message=message)
    elif spec.dataset.packing in ("packed", "isolated"):
        message = "with two tokenizers each row must be one text: make it padded"
        yield FieldError(pointer="/dataset/packing", message=message)


def _isolation_faults(spec: JobSpec) -> Iterator[FieldError]:
    if spec.dataset.packing != "isolated":
        return
    networks = {place: teacher.architecture for place, teacher in spec.teachers.items()} | {"student": spec.student.architecture}
    for place, architecture in networks.items():
        if isinstance(architecture, TransformersNetwork) and architecture.model_type in NOT_ISOLATED:
            kind = f"{architecture.model_type} of the {place}"
            message = f"the {kind} does not keep the texts of a row from attending to each other: make it padded"
            yield FieldError(pointer="/dataset/packing", message=message)
            return


def _written_faults(spec: JobSpec) -> Iterator[FieldError]:
    if spec.dataset.packing == "packed" and spec.dataset.targets:
        yield FieldError(
            pointer="/dataset/packing", message="a text and its answer are a row of their own: make it padded, or name no target"
        )
    tokenizer = spec.student.tokenizer or spec.first_teacher.tokenizer
    if not isinstance(spec.method, SequenceLevel | OnPolicy):
        return
    if spec.dataset.packing == "isolated":
        message = f"{spec.method.name} writes after the prompt of each row, which must be one text: make it padded"
        yield FieldError(pointer="/dataset/packing", message=message)
    if tokenizer is None:
        return
    length = min(tokenizer.max_length, spec.dataset.row_tokens or tokenizer.max_length)
    most = length - LEAST_PROMPT
    if spec.method.max_new_tokens > most:
        message = (
            f"a row has {length} tokens, a prompt's among them, and {spec.method.max_new_tokens} are to be written: "
            f"write {most} at most, or raise max_length"
        )
        yield FieldError(pointer="/method/max_new_tokens", message=message)
