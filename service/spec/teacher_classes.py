"""The classes of a target where the data alone do not tell them: those of a given teacher. Pure, no torch.

Data without any label take the teacher's classes, or learn that the target is a number. Labels that are integers name their
classes by number, up to the highest that occurs: if the teacher knows all of these names and more, its classes are the data's, so
that digits without a single 9 are still ten classes. Named classes stay the data's own.
"""

from collections.abc import Collection, Mapping, Sequence

from service.spec.data import Column, DatasetInfo


def adopted_classes(
    ours: Mapping[str, Sequence[str] | None], theirs: Sequence[str], *, teaches: Collection[str] | None = None
) -> dict[str, list[str] | None]:
    """The targets whose classes come from a teacher with the outputs ``theirs``, with these classes; None for a number.

    Args:
        ours: the classes of each target of the data: none where no row has a label, None for a number.
        theirs: the names of the teacher's outputs: bare class names, or ``target: class``.
        teaches: the targets that the teacher is asked for; None for all.
    """
    taught = [name for name in ours if teaches is None or name in teaches]
    adopted: dict[str, list[str] | None] = {}
    for name in taught:
        own = ours[name]
        if own is None or (known := _outputs_of(name, theirs, is_alone=len(taught) == 1)) is None:
            continue
        if not own:
            adopted[name] = None if len(known) == 1 else known
        elif list(own) == [str(index) for index in range(len(own))] and set(own) < set(known):
            adopted[name] = known
    return adopted


def with_adopted_classes(dataset: DatasetInfo, adopted: Mapping[str, list[str] | None]) -> DatasetInfo:
    """The description of a dataset whose targets have these classes."""
    columns = {name: _adopted(column, adopted[name]) if name in adopted else column for name, column in dataset.columns.items()}
    return dataset.model_copy(update={"columns": columns})


def _adopted(column: Column, classes: list[str] | None) -> Column:
    if classes is None:
        return column.model_copy(update={"kind": "number", "classes": None, "num_classes": None, "class_counts": None})
    before = column.classes or []
    counts = {
        split: [dict(zip(before, of_split, strict=True)).get(name, 0) for name in classes]
        for split, of_split in (column.class_counts or {}).items()
    }
    return column.model_copy(update={"classes": classes, "num_classes": len(classes), "class_counts": counts})


def _outputs_of(target: str, theirs: Sequence[str], *, is_alone: bool) -> list[str] | None:
    """The classes of a target among a teacher's outputs; one name for a number; None if the teacher has none for it."""
    prefix = f"{target}: "
    if named := [name.removeprefix(prefix) for name in theirs if name.startswith(prefix)]:
        return named
    if target in theirs:
        return [target]
    return list(theirs) if is_alone and theirs else None
