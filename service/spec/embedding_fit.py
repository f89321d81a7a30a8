"""Checks whether the parts of a spec for sentence embeddings fit each other. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.data import EMBEDDING
from service.spec.job import JobSpec
from service.spec.methods import SumOfTerms, method_names


def embedding_faults(spec: JobSpec) -> list[FieldError]:
    """Finds every fault: the method on another task, another method for embeddings, and options that need labels."""
    names = method_names(spec.method)
    if spec.task == EMBEDDING:
        return list(_faults(spec))
    if "embedding" not in names or spec.task == "causal-lm":  # which names the methods that it has
        return []
    pointer = f"/method/terms/{names.index('embedding')}/name" if isinstance(spec.method, SumOfTerms) else "/method/name"
    return [FieldError(pointer=pointer, message=f"embedding is for sentence-embedding, not for {spec.task}: take soft-targets")]


def _faults(spec: JobSpec) -> Iterator[FieldError]:
    if isinstance(spec.method, SumOfTerms) or spec.method.name != "embedding":
        pointer = "/method/terms" if isinstance(spec.method, SumOfTerms) else "/method/name"
        yield FieldError(
            pointer=pointer, message="a sentence-embedding learns its teacher's embeddings: take the method embedding"
        )
    if len(spec.teachers) > 1:
        yield FieldError(pointer="/teacher", message="a sentence-embedding has one teacher: leave one alone in the list")
    for place, teacher in spec.teachers.items():
        if teacher.source == "train":
            message = "an embedding has no labels that a teacher could be trained on here: take model:ID, job:ID or hub:REPO"
            yield FieldError(pointer=f"/{place}/source", message=message)
    if spec.student.source != "random":
        yield FieldError(pointer="/student/source", message="a sentence-embedding's student begins at random: leave source out")
    if spec.evaluation.control:
        message = "without its teacher there is nothing that the student could learn: leave control out"
        yield FieldError(pointer="/evaluation/control", message=message)
    if spec.exports:
        yield FieldError(
            pointer="/exports", message="an embedding is given out as its library's folder alone: leave exports empty"
        )
