"""``labels.json``, what a network's outputs mean; and the same where only the library's config tells it."""

import json
from pathlib import Path
from typing import Any

from service.spec.problem_type import MULTI_LABEL, NUMBERS
from worker.models.errors import UnreadableNetwork
from worker.targets import Target, Targets

LABELS_FILE = "labels.json"
_ANY_OF = "any_of"


def write_labels(folder: Path, targets: Targets) -> None:
    """Writes a list of class names for a classification; else an object of each target's class names, null for a number.

    Of classes that do not exclude each other they stand as ``{"any_of": [names]}``.
    """
    if targets.is_classification:
        write_json(folder / LABELS_FILE, targets.classes)
    elif len(targets):
        write_json(folder / LABELS_FILE, {target.name: _written(target) for target in targets})


def read_labels(folder: Path, *, num_outputs: int | None = None) -> Targets:
    """Reads the file. Raises UnreadableNetwork if it is missing, broken, or for another number of outputs."""
    match read_json(folder / LABELS_FILE):
        case list() as names if all(isinstance(name, str) for name in names):
            targets = Targets.of_classes(names)
        case dict() as by_target if all(_are_names(names) for names in by_target.values()):
            targets = Targets(tuple(_read(name, names) for name, names in by_target.items()))
        case _:
            targets = Targets(())
    if num_outputs is not None and targets.width != num_outputs:
        raise UnreadableNetwork(f"{LABELS_FILE} does not name {num_outputs} outputs: a list of class names, or one by target")
    return targets


def targets_of_config(config: Any) -> Targets:
    """What the outputs mean to the library: one is a number, and so is each of several if ``problem_type`` says so.

    Or it says that each is a class's own, which is a yes or no.
    """
    named = [str(config.id2label[index]) for index in range(config.num_labels)]
    if config.problem_type == MULTI_LABEL:
        return Targets((Target("labels", tuple(named), label_kind="labels"),))
    if config.problem_type == NUMBERS or len(named) == 1:
        return Targets(tuple(Target(name, None) for name in named))
    return Targets.of_classes(named)


def _written(target: Target) -> Any:
    names = None if target.classes is None else list(target.classes)
    return {_ANY_OF: names} if target.is_multi_label else names


def _read(name: str, names: Any) -> Target:
    if isinstance(names, dict):
        return Target(name, tuple(names[_ANY_OF]), label_kind="labels")
    return Target(name, None if names is None else tuple(names))


def _are_names(names: Any) -> bool:
    if isinstance(names, dict):
        return names.keys() == {_ANY_OF} and names[_ANY_OF] is not None and _are_names(names[_ANY_OF])
    return names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))


def read_json(path: Path) -> Any:
    """Reads any JSON file of a network's folder. Raises UnreadableNetwork."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreadableNetwork(f"{path.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableNetwork(f"{path.name} cannot be read: {error}") from error


def write_json(path: Path, document: Any) -> None:
    """Writes an indented JSON file. Raises ValueError for NaN and infinity, which JSON lacks."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
