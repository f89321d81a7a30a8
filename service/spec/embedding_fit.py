"""Checks whether the parts of a spec for sentence embeddings fit each other. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.job import JobSpec
from service.spec.methods import SumOfTerms


def embedding_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds every fault of a job for embeddings: another method, and options that need labels."""
    if spec.dataset.targets:
        yield FieldError(pointer="/dataset/targets", message="a sentence-embedding has its teacher alone: leave targets empty")
    if isinstance(spec.method, SumOfTerms) or spec.method.name != "embedding":
        pointer = "/method/terms" if isinstance(spec.method, SumOfTerms) else "/method/name"
        yield FieldError(
            pointer=pointer, message="a sentence-embedding learns its teacher's embeddings: take the method embedding"
        )
    if len(spec.teachers) > 1:
        yield FieldError(pointer="/teacher", message="a sentence-embedding has one teacher: leave one alone in the list")
    for place, teacher in spec.teachers.items():
        if teacher.source != "train" and teacher.training is not None:
            message = "an embedding has no labels that a teacher could be fine-tuned on: leave training out"
            yield FieldError(pointer=f"/{place}/training", message=message)
        if teacher.source == "train":
            message = "an embedding has no labels that a teacher could be trained on here: take model:ID, job:ID or hub:REPO"
            yield FieldError(pointer=f"/{place}/source", message=message)
    if spec.student.source == "teacher-layers":
        message = "a sentence-embedding's student begins at random, or as an encoder that exists: name one, or leave source out"
        yield FieldError(pointer="/student/source", message=message)
    if spec.evaluation.control:
        message = "without its teacher there is nothing that the student could learn: leave control out"
        yield FieldError(pointer="/evaluation/control", message=message)
