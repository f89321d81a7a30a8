"""Which output of a given network is which class of the data: by name, whatever order and case. Pure, no torch.

Names are the same if they are equal, or differ in case, in surrounding blanks, or in what stands between their words (a blank, an
underscore, a hyphen). Invariant: an output is never chosen by its position, and never by a likeness that two names share: data
with the classes ``us`` and ``US`` are read by equal names alone.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[_\-\s]+(?=[^\W_])")
_PLACEHOLDER = re.compile(r"(label|class|category|target|output|id)?[ _-]*\d+", re.IGNORECASE)
"""``LABEL_0``, as transformers numbers what nobody named."""
_SHOWN = 20


@dataclass(frozen=True)
class OutputMap:
    """A network's outputs in the order of the data's."""

    order: list[int]
    """For each of the data's outputs its index among the network's; -1 for those of a target that it does not teach."""
    unused: list[str]
    """The network's outputs that the data have no class for."""


class UnknownOutputs(ValueError):
    """The network lacks an output for a class of the data; ``message`` says what it has instead, ``hint`` what to do."""

    def __init__(self, missing: Sequence[str], *, ours: Sequence[str], theirs: Sequence[str]) -> None:
        lacking = "none of its outputs is a class of the dataset" if len(missing) == len(ours) else f"it lacks {_listed(missing)}"
        counts = f"it has {len(theirs)}, the dataset {len(ours)}: " if len(theirs) != len(ours) else ""
        self.message = f"{counts}{lacking}; its outputs are {_listed(theirs)}, the dataset has {_listed(ours)}"
        self.hint = _hint(missing, ours=ours, theirs=theirs)
        super().__init__(self.message)


def map_outputs(
    ours: Mapping[str, Sequence[str] | None], theirs: Sequence[str], *, teaches: Collection[str] | None = None
) -> OutputMap:
    """Maps a network's outputs to those of the data.

    Args:
        ours: the classes of each target of the data; None for a number.
        theirs: the names of the network's outputs, in its own order: bare class names, or ``target: class``.
        teaches: the targets that the network is asked for; None for all.

    Raises:
        UnknownOutputs: an output is missing, or two names are too alike to tell which is meant.
    """
    taught = [name for name in ours if teaches is None or name in teaches]
    columns = {name: _columns(name, ours[name]) for name in ours}
    wanted = [column for name in taught for column in columns[name]]
    forms = [wanted]
    if len(taught) == 1:
        # A network of this target alone has no need to name it.
        classes = ours[taught[0]]
        forms.insert(0, list(classes) if classes is not None else _only_output(wanted, theirs))
    for form in forms:
        found = map_names(form, theirs)
        if found.keys() == set(form):
            chosen = iter(form)
            order = [found[next(chosen)] if name in taught else -1 for name in ours for _ in columns[name]]
            return OutputMap(order, [name for index, name in enumerate(theirs) if index not in set(order)])
    missing = [name for name in forms[0] if name not in map_names(forms[0], theirs)]
    raise UnknownOutputs(missing, ours=forms[0], theirs=theirs)


def map_names(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, int]:
    """Finds the index of each name among ``theirs``; a name that is not there, or more than once, is left out."""
    times, alike_ours, alike_theirs = Counter(theirs), Counter(map(_spelling, ours)), Counter(map(_spelling, theirs))
    exactly = {name: index for index, name in enumerate(theirs) if times[name] == 1}
    loosely = {spelling: index for index, spelling in enumerate(map(_spelling, theirs)) if alike_theirs[spelling] == 1}
    found = {}
    for name in ours:
        spelling = _spelling(name)
        index = exactly.get(name, loosely.get(spelling) if alike_ours[spelling] == 1 else None)
        if index is not None:
            found[name] = index
    return found


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether the names are numbers alone, such as ``LABEL_0``, which say nothing of what they stand for."""
    return bool(names) and all(_PLACEHOLDER.fullmatch(name.strip()) for name in names)


def _spelling(name: str) -> str:
    return _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", name).strip().casefold())


def _columns(target: str, classes: Sequence[str] | None) -> list[str]:
    return [target] if classes is None else [f"{target}: {name}" for name in classes]


def _only_output(wanted: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """The name of a number that is a network's one output: there is no order to mistake, so it need not be named."""
    return list(theirs) if len(theirs) == 1 and are_placeholders(theirs) else list(wanted)


def _hint(missing: Sequence[str], *, ours: Sequence[str], theirs: Sequence[str]) -> str:
    if are_placeholders(theirs) and len(theirs) >= len(ours):
        names = {str(index): name for index, name in enumerate(ours[:3])}
        example = json.dumps(names, ensure_ascii=False)
        return (
            "Its outputs are numbered, not named. Find out in which order it was trained, and write the dataset's names in that "
            f'order into its config.json, as "id2label": {example[:-1]}{", …" if len(ours) > 3 else ""}}} if this is the order '
            "(and into labels.json if the folder has one); then give the folder anew."
        )
    if len(theirs) < len(ours) and len(missing) < len(ours):
        return (
            "Choose a teacher that knows every class, or leave the rows of "
            f"{_listed(missing)} out of the dataset; of several targets, teacher.targets names those that a teacher knows."
        )
    return (
        "If the classes are the same in other words, write the dataset's names into its config.json, in id2label (and into "
        "labels.json if the folder has one), or give the dataset the teacher's names; else choose another teacher."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
