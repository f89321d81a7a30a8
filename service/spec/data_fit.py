"""Whether a dataset has the columns and splits that a spec asks for: every fault at once, each at its place. Pure, no torch."""

from collections.abc import Collection

from service.errors import FieldError
from service.spec.data import WITH_CLASSES, DatasetInfo, DatasetSpec, Splits, why_not_named
from service.spec.problem_type import MULTI_LABEL, NUMBERS, ONE_LABEL, ProblemType
from service.spec.split_names import split_roles
from service.spec.tasks import TASKS, TaskName


def data_faults(
    spec: DatasetSpec, dataset: DatasetInfo, *, task: TaskName, without_labels: Collection[str] = ()
) -> list[FieldError]:
    """Finds every fault of the spec's dataset part, with pointers from the spec's root.

    ``without_labels`` names the targets that can be learned without: parts that are held out may lack a class of them.
    """
    return _column_faults(spec, dataset, task=task) + _image_faults(spec, dataset) + _split_faults(spec, dataset, without_labels)


def target_classes(dataset: DatasetInfo, name: str) -> list[str] | None:
    """The class names of a target; None for a number, and for a column that is not there."""
    column = dataset.columns.get(name)
    if column is None or column.kind not in WITH_CLASSES:
        return None
    # A dataset that was described when it could have one target alone says its classes once.
    return column.classes if column.classes is not None else dataset.classes


def output_names(spec: DatasetSpec, dataset: DatasetInfo) -> list[str]:
    """Names of the outputs of a network for these targets: classes, after the name of their target if there are several."""
    classes = {name: target_classes(dataset, name) for name in spec.targets}
    if len(classes) == 1 and (alone := next(iter(classes.values()))) is not None:
        return alone
    return [
        output
        for name, known in classes.items()
        for output in ([name] if known is None else [f"{name}: {each}" for each in known])
    ]


def problem_type(spec: DatasetSpec, dataset: DatasetInfo) -> ProblemType | None:
    """What the outputs of a network for these targets mean; None of several targets, and of one that no row has a value of."""
    column = dataset.columns.get(spec.targets[0]) if len(spec.targets) == 1 else None
    if column is None or column.kind not in (*WITH_CLASSES, "number") or column.classes == []:
        return None
    return MULTI_LABEL if column.kind == "labels" else NUMBERS if column.kind == "number" else ONE_LABEL


def chosen_splits(spec: DatasetSpec, available: list[str]) -> Splits:
    """The dataset's splits that the spec uses: those that it names, else those whose names say it; see ``split_names``."""
    if spec.splits is not None:
        return spec.splits
    roles = split_roles(available)
    return Splits(train=roles.train or "train", validation=roles.validation, test=roles.test)


def transfer_split(spec: DatasetSpec, available: list[str]) -> str | None:
    """The split of the transfer dataset that is used: the one with the training split's name, else its own training split, else
    its only one.

    None if there is none of these.
    """
    named = [spec.splits.train if spec.splits is not None else None, split_roles(available).train]
    return next((name for name in named if name in available), available[0] if len(available) == 1 else None)


def _column_faults(spec: DatasetSpec, dataset: DatasetInfo, *, task: TaskName) -> list[FieldError]:
    faults = []
    for pointer, name, kinds in (
        *((pointer, name, TASKS[task].input_columns) for pointer, name in input_places(spec)),
        *((f"/dataset/targets/{index}", name, TASKS[task].target_kinds) for index, name in enumerate(spec.targets)),
    ):
        of_kind = [column for column, described in dataset.columns.items() if described.kind in kinds]
        kind = " and ".join(kinds) if len(kinds) < 3 else "target"
        there = f"its {kind} columns are {listed(of_kind)}"
        found = dataset.columns.get(name)
        if found is None:
            there += f", of all columns {listed(list(dataset.columns))}"
            faults.append(FieldError(pointer=pointer, message=f"the dataset has no column {name!r}; {there}"))
        elif found.kind == "other" and not pointer.startswith("/dataset/input"):
            message = (
                f"column {name!r} was not uploaded as a target: upload the file again with target_column={','.join(spec.targets)}"
            )
            faults.append(FieldError(pointer=pointer, message=f"{message}; {there}"))
        elif found.kind == "other" and len(spec.inputs) > 1 and "string" in found.dtype:
            message = f"column {name!r} was not uploaded as an input: upload it again with input_column={','.join(spec.inputs)}"
            faults.append(FieldError(pointer=pointer, message=message))
        elif found.kind not in kinds:
            held = " or ".join(dict.fromkeys(map(plural, kinds)))
            faults.append(FieldError(pointer=pointer, message=f"column {name!r} holds no {held} ({found.dtype}); {there}"))
    return [
        *faults,
        *_weight_faults(spec, dataset, task=task),
        *_number_faults(spec, dataset),
        *_number_of_targets_faults(spec, task=task),
        *_chat_faults(spec, dataset),
    ]


def input_places(spec: DatasetSpec) -> list[tuple[str, str]]:
    """The pointer to each input column, and its name."""
    if isinstance(spec.input, str):
        return [("/dataset/input", spec.input)]
    return [(f"/dataset/input/{index}", name) for index, name in enumerate(spec.input)]


def _tasks_of_pairs() -> list[str]:
    return [name for name, info in TASKS.items() if info.takes_pairs]


def _weight_faults(spec: DatasetSpec, dataset: DatasetInfo, *, task: TaskName) -> list[FieldError]:
    name = spec.weight
    if name is None:
        return []
    column, how = dataset.columns.get(name), f"upload the file again with weight_column={name}"
    if not TASKS[task].takes_weights:
        message = f"rows of a {task} have no weights: leave weight out"
    elif name in (*spec.inputs, *spec.targets):
        message = f"column {name!r} is an input or a target too: name another"
    elif column is None:
        message = f"the dataset has no column {name!r}; it has {listed(list(dataset.columns))}"
    elif column.kind not in ("weight", "number"):
        message = f"column {name!r} was not uploaded as a weight ({column.dtype}): {how}, if it holds numbers"
    else:
        return []
    return [FieldError(pointer="/dataset/weight", message=message)]


def image_shape(spec: DatasetSpec, dataset: DatasetInfo) -> tuple[int, int, int] | None:
    """(channels, height, width) of the images as all networks get them; None for another column, and where a given network's
    image processor says it."""
    found = dataset.columns.get(spec.inputs[0])
    if found is None or found.kind != "image":
        return None
    if spec.image is not None and (sides := spec.image.sides) is not None:
        channels = found.shape[2] if found.shape is not None else found.sizes.channels if found.sizes is not None else None
        return None if channels is None else (channels, *sides)
    if found.shape is None or len(found.shape) != 3 or spec.image is not None:
        return None
    height, width, channels = found.shape
    return channels, height, width


def _image_faults(spec: DatasetSpec, dataset: DatasetInfo) -> list[FieldError]:
    column = dataset.columns.get(spec.inputs[0])
    if spec.image is None or column is None:
        return []
    if column.kind != "image":
        return [FieldError(pointer="/dataset/image", message=f"column {spec.inputs[0]!r} holds no images: leave it out")]
    if column.dtype != "uint8":
        message = "it fits files of images, and these are arrays of floats of one size: leave it out"
        return [FieldError(pointer="/dataset/image", message=message)]
    return []


def class_name_faults(spec: DatasetSpec, dataset: DatasetInfo) -> list[FieldError]:
    """Finds names of classes that are no target's, or do not fit its classes in ``dataset``, as its file has them."""
    faults = []
    for name, names in spec.class_names.items():
        if name not in spec.targets:
            why: str | None = f"{name!r} is no target: dataset.targets names {listed(spec.targets)}"
        elif name not in dataset.columns or not dataset.columns[name].classes:
            continue  # told elsewhere, or a teacher's classes
        else:
            told = why_not_named(dataset.columns[name].classes, names)
            why = told and f"column {name!r} cannot be named so: {told}"
        if why:
            escaped = name.replace("~", "~0").replace("/", "~1")
            faults.append(FieldError(pointer=f"/dataset/class_names/{escaped}", message=why))
    return faults


def _number_faults(spec: DatasetSpec, dataset: DatasetInfo) -> list[FieldError]:
    faults = []
    for index, name in enumerate(spec.numbers):
        column = dataset.columns.get(name)
        if name not in spec.targets:
            message = f"{name!r} is no target: dataset.targets names {listed(spec.targets)}"
        elif column is not None and column.kind in WITH_CLASSES and column.classes:
            message = f"column {name!r} holds classes ({column.dtype}): numbers are written as floats, .astype('float64')"
        else:
            continue
        faults.append(FieldError(pointer=f"/dataset/numbers/{index}", message=message))
    return faults


def _number_of_targets_faults(spec: DatasetSpec, *, task: TaskName) -> list[FieldError]:
    info = TASKS[task]
    if not info.takes_pairs and len(spec.inputs) > 1:
        named = " and ".join(map(repr, spec.inputs))
        message = (
            f"a {task} reads one column, and {named} are named: name one; pairs of texts are for {listed(_tasks_of_pairs())}"
        )
        return [FieldError(pointer="/dataset/input", message=message)]
    both = next((name for name in spec.inputs if name in spec.targets), None)
    if both is not None and set(info.input_columns) & set(info.target_kinds):
        place = f"/dataset/targets/{spec.targets.index(both)}"
        return [FieldError(pointer=place, message=f"column {both!r} is the input: name another to be predicted")]
    if len(spec.targets) > info.max_targets:
        return [FieldError(pointer="/dataset/targets/1", message=f"a {task} has one target at most, {info.only_target}")]
    if info.targets and not spec.targets:
        kinds = " or ".join(map(plural, info.target_kinds))
        return [FieldError(pointer="/dataset/targets", message=f"{task} predicts something: name a column of {kinds}")]
    return []


def _chat_faults(spec: DatasetSpec, dataset: DatasetInfo) -> list[FieldError]:
    """Finds what a spec says of chats whose input holds texts, and the other way round."""
    column = spec.inputs[0]
    kind = dataset.columns[column].kind if column in dataset.columns else None
    faults = []
    if kind == "messages" and spec.packing == "packed":
        message = "chats are not cut into rows one after another, for what counts are the answers: make it padded or isolated"
        faults.append(FieldError(pointer="/dataset/packing", message=message))
    if kind == "text" and spec.overlong == "refuse" and (spec.packing or ("padded" if spec.targets else "packed")) == "packed":
        message = "packed texts are cut where rows end, however long they are: set packing to padded or isolated"
        faults.append(FieldError(pointer="/dataset/overlong", message=message))
    if kind == "text" and spec.chat_template is not None:
        message = f"column {column!r} holds texts, and a template writes chats: name a column of messages, or leave it out"
        faults.append(FieldError(pointer="/dataset/chat_template", message=message))
    for index, name in enumerate(spec.targets):
        other = dataset.columns[name].kind if name in dataset.columns else None
        if {kind, other} == {"text", "messages"}:
            message = f"column {name!r} holds {plural(str(other))}, and the input {plural(str(kind))}: take both of one kind"
            faults.append(FieldError(pointer=f"/dataset/targets/{index}", message=message))
    return faults


def _split_faults(spec: DatasetSpec, dataset: DatasetInfo, without_labels: Collection[str]) -> list[FieldError]:
    splits = chosen_splits(spec, list(dataset.splits))
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    faults, taken = [], dict[str, str]()
    for role, name in named.items():
        if name is None:
            continue
        if name not in dataset.splits:
            message = f"the dataset has no split {name!r}; it has {listed(list(dataset.splits))}"
            faults.append(FieldError(pointer=f"/dataset/splits/{role}", message=message))
        elif dataset.splits[name] == 0:
            faults.append(FieldError(pointer=f"/dataset/splits/{role}", message=f"split {name!r} has no rows"))
        elif name in taken:
            message = f"split {name!r} is already the {taken[name]} split; each must have its own samples"
            faults.append(FieldError(pointer=f"/dataset/splits/{role}", message=message))
        taken.setdefault(name, role)
    return faults or _held_out_faults(spec, dataset, splits, without_labels)


def _held_out_faults(
    spec: DatasetSpec, dataset: DatasetInfo, splits: Splits, without_labels: Collection[str]
) -> list[FieldError]:
    held_out = [role for role, name in (("validation", splits.validation), ("test", splits.test)) if name is None]
    needed = 1 + len(held_out)
    if not held_out:
        return []
    scarce = [(count, name) for name, count in _needed_counts(spec, dataset, splits.train, without_labels) if 0 < count < needed]
    if not scarce and dataset.splits[splits.train] >= needed:
        return []
    what = f"split {splits.train!r} is to be cut into train, {' and '.join(held_out)}, which takes {needed} samples"
    if scarce:
        count, name = min(scarce)
        others = f" (and {len(scarce) - 1} more classes are as scarce)" if len(scarce) > 1 else ""
        what += f" of each class; class {name!r} has {count}{others}"
    else:
        what += f"; it has {dataset.splits[splits.train]} rows"
    message = f"{what}. Add samples, or give the dataset a {' and a '.join(held_out)} split of its own"
    return [FieldError(pointer=f"/dataset/{held_out[0]}_fraction", message=message)]


def _needed_counts(spec: DatasetSpec, dataset: DatasetInfo, split: str, without_labels: Collection[str]) -> list[tuple[str, int]]:
    """Samples of each class of the first target that has classes, by which held-out shares are stratified, if it needs labels."""
    for name in spec.targets:
        classes = target_classes(dataset, name)
        if classes is not None and dataset.columns[name].kind == "label":
            if name in without_labels:
                return []
            counts = dataset.columns[name].class_counts or dataset.class_counts
            return list(zip(classes, counts.get(split, []), strict=False))
    return []


def plural(kind: str) -> str:
    """What the values of a column of that kind are called."""
    return kind if kind.endswith("s") else f"{kind}s"


def listed(names: list[str]) -> str:
    """The first few names, quoted, for a message."""
    shown = ", ".join(repr(name) for name in names[:20])
    return (shown + (", …" if len(names) > 20 else "")) or "none"
