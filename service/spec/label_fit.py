"""Which labels a job needs, and whether the data have them: every fault at its place. Pure, no torch.

A student of a given teacher needs none. Labels are needed by a teacher that the job itself trains, by a target that no teacher
teaches, by methods that read the class of each row, and by those that teach a student's inner layers alone. Everything else
counts the rows that have a label.
"""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.data import DatasetInfo, Splits
from service.spec.data_fit import chosen_splits, listed, target_classes
from service.spec.job import JobSpec
from service.spec.method_fit import compared_method, term_pointers
from service.spec.methods import BetweenLayers, DistilBert, DistillationNetwork, Labels, LossTerm, MultiTask, Softened, terms_of
from service.spec.tasks import TASKS


def label_faults(spec: JobSpec, dataset: DatasetInfo) -> list[FieldError]:
    """Finds every fault of the labels of ``dataset``, whose targets have the classes of the teachers where those are known."""
    splits = chosen_splits(spec.dataset, list(dataset.splits))
    targets = [name for name in spec.dataset.targets if name in dataset.columns]
    if splits.train not in dataset.splits or not targets:
        return []
    if not TASKS[spec.task].targets:
        return _answer_faults(spec, dataset)
    # Those that the dataset has not are faults of their own.
    spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"targets": targets})})
    faults = list(_learned_faults(spec, dataset, splits))
    if not faults:
        faults += _validation_faults(spec, dataset, splits)
        faults += _method_faults(spec, dataset, splits)
    return faults


def learned_without_labels(spec: JobSpec) -> set[str]:
    """The targets that teachers teach which the job does not train: none, if it trains one, which learns all targets."""
    if any(teacher.source == "train" for teacher in spec.teachers.values()):
        return set()
    return {name for teacher in spec.teachers.values() for name in teacher.targets or spec.dataset.targets}


def num_labelled(dataset: DatasetInfo, target: str, split: str) -> int:
    """Number of the rows of a split that have a value for the target."""
    return dataset.splits[split] - dataset.columns[target].missing_counts.get(split, 0)


def _answer_faults(spec: JobSpec, dataset: DatasetInfo) -> list[FieldError]:
    """Faults of texts to be predicted: each prompt has its answer."""
    faults = []
    for index, name in enumerate(spec.dataset.targets):
        if name in dataset.columns and (missing := dataset.columns[name].num_missing):
            message = f"{missing} rows have no value in column {name!r}: fill them, or drop them"
            faults.append(FieldError(pointer=f"/dataset/targets/{index}", message=message))
    return faults


def _learned_faults(spec: JobSpec, dataset: DatasetInfo, splits: Splits) -> Iterator[FieldError]:
    """Finds targets that are learned from labels, and of which the training split does not show every class that counts."""
    without = learned_without_labels(spec)
    trained = any(teacher.source == "train" for teacher in spec.teachers.values())
    for index, name in enumerate(spec.dataset.targets):
        if name not in dataset.columns or name in without:
            continue
        fault = _unseen_in_train(dataset, name, splits)
        if fault is not None:
            what, remedy = fault
            learner = "the teacher, which this job trains itself," if trained else "a target that no teacher teaches"
            message = (
                f"column {name!r} of split {splits.train!r} {what}; {learner} needs labels: {remedy}, or give a "
                "teacher that knows them (job:ID, model:ID or hub:REPO)"
            )
            yield FieldError(pointer=f"/dataset/targets/{index}", message=message)


def _unseen_in_train(dataset: DatasetInfo, name: str, splits: Splits) -> tuple[str, str] | None:
    """What the training split lacks of a target that is learned from labels, and what to do."""
    column, classes = dataset.columns[name], target_classes(dataset, name)
    if num_labelled(dataset, name, splits.train) == 0:
        what = f"has no value in any row ({column.num_missing} rows have no value in column {name!r})"
        return what, _how_to_label(dataset, name)
    counts = column.class_counts or dataset.class_counts
    if classes is None or splits.train not in counts:
        return None
    of_train = counts[splits.train]
    seen = [each for each, count in zip(classes, of_train, strict=True) if count]
    if len(seen) < 2:
        return f"has one class, {listed(seen)}; a classification needs at least two", "add rows of another class"
    if column.kind not in ("label", "labels"):  # a type of entities may be too rare to be in every part
        return None
    others = [counts[part] for part in (splits.validation, splits.test) if part in counts]
    scored = [sum(of_class) for of_class in zip(*others, strict=True)] or [0] * len(classes)
    if unseen := [each for each, there, count in zip(classes, of_train, scored, strict=True) if count and not there]:
        return f"has no row of {listed(unseen)}, which other splits have", "add some, or leave those rows out"
    if column.kind == "label" and classes == [str(at) for at in range(len(classes))] and len(seen) < len(classes):
        gap = listed([each for each in classes if each not in seen])
        return (
            f"has class indices up to {classes[-1]} and no row of {gap}",
            "number the classes from 0 without a gap, for instance with numpy.unique(label, return_inverse=True)[1]",
        )
    return None


def _how_to_label(dataset: DatasetInfo, name: str) -> str:
    """A column that the file lacks is described as one of nulls: its labels may be in another."""
    others = [other for other, column in dataset.columns.items() if column.kind == "other"]
    if dataset.columns[name].dtype != "null" or not others:
        return "fill some"
    return (
        f"the file has no such column; if one of {listed(others)} holds them, name it in dataset.targets, after an upload with "
        "target_column=NAME"
    )


def _validation_faults(spec: JobSpec, dataset: DatasetInfo, splits: Splits) -> Iterator[FieldError]:
    """A teacher that is trained here is chosen by its score: without labels in validation there is none."""
    if splits.validation not in dataset.splits or all(teacher.source != "train" for teacher in spec.teachers.values()):
        return
    if not any(num_labelled(dataset, name, splits.validation) for name in spec.dataset.targets):
        message = (
            f"split {splits.validation!r} has no label, and the best weights of the teacher, which this job trains, are those "
            "with the best score on it: label some of its rows, give a teacher, or set dataset.splits with validation null, so "
            "that a share of the training split is held out"
        )
        yield FieldError(pointer="/dataset/splits/validation", message=message)


def _method_faults(spec: JobSpec, dataset: DatasetInfo, splits: Splits) -> Iterator[FieldError]:
    labelled = {name: num_labelled(dataset, name, splits.train) for name in spec.dataset.targets}
    some = any(labelled.values())
    missing = dataset.splits[splits.train] - min(labelled.values())
    terms = list(zip(term_pointers(spec), terms_of(spec.method), strict=True))
    for pointer, term in terms:
        if compared_method(term).reads_one_class and (missing or spec.dataset.transfer is not None):
            lacking = f"{missing} rows of split {splits.train!r}" if missing else "the transfer rows"
            remedy = "drop these rows" if some and missing else "leave transfer out" if not missing else "label them"
            message = (
                f"{term.name} reads the class of each row, and {lacking} have no label: {remedy}, or take a method that reads "
                "the teacher's outputs alone, such as soft-targets or dist"
            )
            yield FieldError(pointer=f"{pointer}/name", message=message)
        elif isinstance(term, Labels | DistillationNetwork) and not some:
            message = (
                f"{term.name} trains the student's outputs by labels, and no row of split {splits.train!r} has one: label some, "
                "or take a method that reads the teacher's outputs, such as soft-targets"
            )
            yield FieldError(pointer=f"{pointer}/name", message=message)
    if not some and not any(_teaches_outputs(term) or isinstance(term, Labels | DistillationNetwork) for _, term in terms):
        names = ", ".join(term.name for _, term in terms)
        message = (
            f"no row of split {splits.train!r} has a label, and {names}, as it is here, leaves the student's outputs to them: "
            "add a term that teaches the outputs, as in {terms: [{name: soft-targets}, …]}, and set its label_weight below 1"
        )
        yield FieldError(pointer="/method", message=message)


def _teaches_outputs(term: LossTerm) -> bool:
    """Whether a term's loss compares the student's outputs with its teacher's."""
    match term:
        case Softened():
            return term.weight > 0 and term.label_weight < 1
        case MultiTask():
            return term.weight > 0 and term.teacher_weight > 0
        case DistilBert():
            return term.weight > 0 and term.kl_weight > 0
        case Labels() | DistillationNetwork() | BetweenLayers():
            return False
    return bool(getattr(term, "weight", 1.0) > 0)
