"""What a spec says without effect, and what of its dataset it leaves out: told when it is submitted, and in the report. No torch.

A field counts where its value is not the default, as a stored spec names every field. A field that contradicts another one is
refused; what is here is only of no use.
"""

from collections.abc import Iterator, Mapping

from service.spec.data import WITH_CLASSES, DatasetInfo, DatasetSpec, reading_warnings
from service.spec.data_fit import chosen_splits, listed
from service.spec.job import JobSpec, TeacherSpec
from service.spec.methods import SequenceLevel, SumOfTerms, TeacherFree, terms_of
from service.spec.methods.terms import LossTerm
from service.spec.source import split_source
from service.spec.tasks import TASKS
from service.spec.warning_message import WarningMessage


def spec_warnings(spec: JobSpec) -> list[WarningMessage]:
    """Finds the fields that have no effect on a job of this kind, whatever its data are."""
    return [
        _without_effect(pointer, reason)
        for pointer, reason in [*_data_fields(spec), *_teacher_fields(spec), *_method_fields(spec)]
    ]


def dataset_warnings(spec: JobSpec, dataset: DatasetInfo) -> list[WarningMessage]:
    """Finds what the spec leaves out of a dataset, and the fields that have no effect on it."""
    targets = [name for name, column in dataset.columns.items() if column.kind in (*WITH_CLASSES, "number")]
    unused = [name for name in targets if name not in (*spec.dataset.targets, spec.dataset.weight)]
    found = [*split_warnings(spec.dataset, dataset.splits), *reading_warnings(dataset, spec.dataset.targets)]
    if spec.dataset.weight is None and (weights := [name for name, each in dataset.columns.items() if each.kind == "weight"]):
        message = f"the dataset's weights {listed(weights)} take no part: dataset.weight names none"
        found.append(WarningMessage(code="weight_unused", message=message))
    if unused and split_source(spec.dataset.source).kind != "builtin":  # whose targets are there to choose from
        message = f"the dataset's target {listed(unused)} takes no part: dataset.targets names {listed(spec.dataset.targets)}"
        found.append(WarningMessage(code="target_unused", message=message))
    return found


def split_warnings(dataset: DatasetSpec, rows_by_split: Mapping[str, int]) -> list[WarningMessage]:
    """Finds the splits that take no part, and the fractions that hold nothing out as the dataset has a split of its own."""
    names = chosen_splits(dataset, list(rows_by_split))
    used = {"train": names.train, "validation": names.validation, "test": names.test}
    found = []
    if unused := [name for name in rows_by_split if name not in used.values()]:
        rows = sum(rows_by_split[name] for name in unused)
        message = f"split {listed(unused)} of the dataset ({rows:,} rows) takes no part: dataset.splits may name it"
        found.append(WarningMessage(code="split_unused", message=message))
    own = [part for part in ("validation", "test") if used[part] is not None]
    for part in own:
        if not _is_default(dataset, f"{part}_fraction"):
            reason = f"the {part} split is the dataset's own {used[part]!r}, and nothing is held out for it"
            found.append(_without_effect(f"/dataset/{part}_fraction", reason))
    if len(own) == 2 and not _is_default(dataset, "split_seed"):
        found.append(_without_effect("/dataset/split_seed", "the dataset has all splits, and nothing is held out"))
    return found


def _data_fields(spec: JobSpec) -> Iterator[tuple[str, str]]:
    dataset = spec.dataset
    if TASKS[spec.task].input_kind != "audio" and not _is_default(dataset, "clip_seconds"):
        yield "/dataset/clip_seconds", f"it is of sound, and {spec.task} reads none"
    if not TASKS[spec.task].packs_rows:
        owner = next(task for task, info in TASKS.items() if info.packs_rows)
        for name in ("packing", "row_tokens", "overlong", "chat_template"):
            if not _is_default(dataset, name):
                yield f"/dataset/{name}", f"it is of a {owner}, and this is {spec.task}"
        return
    tokenizers = {place: teacher.tokenizer for place, teacher in spec.teachers.items()} | {"student": spec.student.tokenizer}
    for place, tokenizer in tokenizers.items():
        if tokenizer is not None and dataset.row_tokens is not None and dataset.row_tokens > tokenizer.max_length:
            yield "/dataset/row_tokens", f"rows are of {tokenizer.max_length} tokens, as /{place}/tokenizer/max_length says"
            return


def _teacher_fields(spec: JobSpec) -> Iterator[tuple[str, str]]:
    if len(spec.teachers) == 1:
        ((place, teacher),) = spec.teachers.items()
        if not _is_default(teacher, "weight"):
            yield f"/{place}/weight", "it is a teacher's share of the mean of several, and there is one"
    if all(isinstance(term, TeacherFree) for term in terms_of(spec.method)):
        place = next(iter(spec.teachers))
        yield (
            f"/{place}",
            "teacher-free learns from a virtual teacher, and this one is there only to be compared with",
        )


def _method_fields(spec: JobSpec) -> Iterator[tuple[str, str]]:
    for index, term in enumerate(terms_of(spec.method)):
        place = f"/method/terms/{index}" if isinstance(spec.method, SumOfTerms) else "/method"
        if getattr(term, "divergence", None) == "mse" and not _is_default(term, "temperature"):
            yield f"{place}/temperature", "the divergence mse compares the logits as they are"
        if isinstance(term, SequenceLevel):
            other = "sampling_temperature" if term.decoding == "beams" else "num_beams"
            if not _is_default(term, other):
                yield f"{place}/{other}", f"the decoding is {term.decoding}"
        if spec.dataset.targets and "prompt_tokens" in type(term).model_fields and not _is_default(term, "prompt_tokens"):
            yield f"{place}/prompt_tokens", "the dataset's answers say where each prompt ends"


def _is_default(part: DatasetSpec | TeacherSpec | LossTerm, name: str) -> bool:
    return bool(getattr(part, name) == type(part).model_fields[name].default)


def _without_effect(pointer: str, reason: str) -> WarningMessage:
    return WarningMessage(code="field_without_effect", message=f"{pointer} has no effect: {reason}")
