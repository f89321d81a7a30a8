"""Checks whether a method fits the targets, the batches and the teachers of a job. Pure functions, no torch.

Invariant: every error of a spec is reported at once, each at its place."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.augment import MIXTURES
from service.spec.data import DatasetInfo
from service.spec.data_fit import listed, target_classes
from service.spec.job import JobSpec
from service.spec.methods import (
    METHODS,
    Labels,
    LogitStandardization,
    LossTerm,
    MultiTask,
    SumOfTerms,
    method_names,
    terms_of,
)
from service.spec.tasks import TASKS


def method_faults(spec: JobSpec, dataset: DatasetInfo) -> list[FieldError]:
    """Finds every error of the spec's method on these data."""
    return [
        *_kind_faults(spec),
        *_packing_faults(spec),
        *_seed_faults(spec),
        *_batch_faults(spec),
        *_target_faults(spec, dataset),
        *_weight_faults(spec),
        *_row_weight_faults(spec),
        *_mixture_faults(spec),
        *_teaching_faults(spec),
        *_token_faults(spec),
    ]


def _kind_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds methods that read of the networks what the task has not; a task with methods of its own alone checks them itself."""
    fitting = TASKS[spec.task].methods
    if "outputs" not in fitting:
        return
    for pointer, term in zip(term_pointers(spec), terms_of(spec.method), strict=True):
        if not isinstance(term, Labels) and term.kind not in fitting:
            what = f"is for {term.made_for}" if term.made_for else "reads inner layers"
            message = f"{term.name} {what}, not for {spec.task}: take soft-targets"
            yield FieldError(pointer=f"{pointer}/name", message=message)


def _packing_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds rows of tokens in a job of another task than those that have them."""
    if TASKS[spec.task].packs_rows:
        return
    owners = " and ".join(f"{info.network}s" for info in TASKS.values() if info.packs_rows)
    for name in ("packing", "row_tokens", "chat_template"):
        if getattr(spec.dataset, name) is not None:
            message = f"{name} is of {owners}, and this job is {spec.task}: leave it out"
            yield FieldError(pointer=f"/dataset/{name}", message=message)


def _seed_faults(spec: JobSpec) -> list[FieldError]:
    if spec.evaluation.seeds and method_names(spec.method) == ["deep-mutual"]:
        message = "seeds repeat the student beside one teacher, and deep-mutual trains both together: leave them out"
        return [FieldError(pointer="/evaluation/seeds", message=message)]
    return []


def _batch_faults(spec: JobSpec) -> list[FieldError]:
    names = [term.name for term in terms_of(spec.method) if compared_method(term).compares_samples]
    if spec.training.batch_size > 1 or not names:
        return []
    message = f"{', '.join(names)} compares the samples of a batch with each other: make it 2 or more"
    return [FieldError(pointer="/training/batch_size", message=message)]


def _target_faults(spec: JobSpec, dataset: DatasetInfo) -> Iterator[FieldError]:
    """Finds methods that are made for one target of classes in a job with another target, several or none."""
    targets = spec.dataset.targets
    if len(targets) == 1 and target_classes(dataset, targets[0]) is not None:
        yield from _list_faults(spec, dataset.columns[targets[0]].kind)
        return
    for pointer, term in zip(term_pointers(spec), terms_of(spec.method), strict=True):
        if term.needs_classes:
            what = "several targets" if len(targets) > 1 else "a number" if targets else "no target"
            message = (
                f"{term.name} is for one target of classes, and this job has {what}: take another method, such as multi-task"
            )
            yield FieldError(pointer=f"{pointer}/name", message=message)


def _list_faults(spec: JobSpec, kind: str) -> Iterator[FieldError]:
    """Finds methods that read one class of each row, or a softmax over all, where rows have lists of labels or probabilities."""
    for pointer, term in zip(term_pointers(spec), terms_of(spec.method), strict=True):
        if kind == "labels" and term.needs_classes:
            message = (
                f"{term.name} compares classes of which a row has one, and these rows have any number of them, each a yes or no: "
                "take soft-targets, multi-task, distillation-network or deep-mutual, or a method of inner layers, such as fitnet"
            )
            yield FieldError(pointer=f"{pointer}/name", message=message)
        elif kind == "probabilities" and compared_method(term).reads_one_class:
            message = (
                f"{term.name} reads the class of each row, and these rows have probabilities of all: take another method, such "
                "as soft-targets or dist, or write the most probable class of each row"
            )
            yield FieldError(pointer=f"{pointer}/name", message=message)


def _weight_faults(spec: JobSpec) -> Iterator[FieldError]:
    for pointer, method in zip(term_pointers(spec), terms_of(spec.method), strict=True):
        if isinstance(method, MultiTask):
            for name in method.target_weights.keys() - set(spec.dataset.targets):
                message = f"the job has no target {name!r}; it has {listed(spec.dataset.targets)}"
                yield FieldError(
                    pointer=f"{pointer}/target_weights/{name.replace('~', '~0').replace('/', '~1')}", message=message
                )


def _row_weight_faults(spec: JobSpec) -> Iterator[FieldError]:
    if spec.dataset.weight is not None and (unfit := unweighted_methods(spec)):
        yield FieldError(pointer="/dataset/weight", message=why_unweighted(unfit))


def unweighted_methods(spec: JobSpec) -> list[str]:
    """The methods of the spec whose losses are no means over rows, in which each could have a weight."""
    return [term.name for term in terms_of(spec.method) if not compared_method(term).weighs_rows]


def why_unweighted(methods: list[str]) -> str:
    """Why these methods are refused beside weights of rows, and what to do."""
    return (
        f"{', '.join(methods)} compares inner layers, or samples with each other, and its loss is no mean in which a row has a "
        "weight: leave weight out, or take a method of outputs, such as soft-targets"
    )


def _teaching_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds unknown targets of a teacher, and targets without a teacher, which only ``multi-task`` leaves out."""
    targets, taught = spec.dataset.targets, set[str]()
    for place, teacher in spec.teachers.items():
        for index, name in enumerate(teacher.targets or []):
            if name not in targets:
                message = f"the job has no target {name!r}; it has {listed(targets)}"
                yield FieldError(pointer=f"/{place}/targets/{index}", message=message)
        taught |= set(targets if teacher.targets is None else teacher.targets)
    untaught = [name for name in targets if name not in taught]
    if untaught and not all(isinstance(term, MultiTask | Labels) for term in terms_of(spec.method)):
        names = ", ".join(method_names(spec.method))
        message = f"no teacher teaches {listed(untaught)}, which {names} needs: name one, or take the method multi-task"
        yield FieldError(pointer=f"/{next(iter(spec.teachers))}/targets", message=message)


def _mixture_faults(spec: JobSpec) -> Iterator[FieldError]:
    hard = [term.name for term in terms_of(spec.method) if compared_method(term).reads_one_class]
    for index, each in enumerate(spec.training.augment if hard else []):
        if each.name in MIXTURES:
            message = (
                f"{each.name} gives a sample two labels, and the loss of {', '.join(hard)} reads one class: "
                "leave it out, or take another method, such as soft-targets"
            )
            yield FieldError(pointer=f"/training/augment/{index}", message=message)


def _token_faults(spec: JobSpec) -> Iterator[FieldError]:
    """Finds methods that compare tokens of two tokenizers. The worker checks layers that a spec names, by their shapes."""
    ours, theirs = spec.student.tokenizer, spec.first_teacher.tokenizer
    if ours is None or ours == theirs:
        return
    for pointer, term in zip(term_pointers(spec), terms_of(spec.method), strict=True):
        if term.compares_tokens and term.layers is None:
            message = (
                f"{term.name} compares token by token, and student and teacher have different tokenizers: leave "
                "student.tokenizer out, so that the student reads as its teacher, or take a method that compares whole texts, "
                "such as rkd or pkt"
            )
            yield FieldError(pointer=f"{pointer}/name", message=message)


def compared_method(term: LossTerm) -> type[LossTerm]:
    """Finds the method whose loss compares the outputs: another method's if the logits are standardised for it."""
    return METHODS[term.loss] if isinstance(term, LogitStandardization) and term.loss != "kl" else type(term)


def term_pointers(spec: JobSpec) -> list[str]:
    """Lists the JSON pointer of each of the method's terms."""
    if isinstance(spec.method, SumOfTerms):
        return [f"/method/terms/{index}" for index in range(len(spec.method.terms))]
    return ["/method"]
