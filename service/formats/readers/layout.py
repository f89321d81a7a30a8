"""The split and the class of each file in an archive, by its folders.

The layouts are ``cat/1.png`` (class folders), ``train/cat/1.png`` (below split folders), and without classes ``1.png`` or
``train/1.png``; a split without class folders may stand beside one with them. Invariant: folders that enclose everything say
nothing, and a lone folder is no class, as it tells nothing apart.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from service.errors import InvalidFile
from service.formats.chunk import check_num_splits, check_split_name
from service.spec.split_names import is_split_name, split_roles

_LAYOUT = (
    "an archive holds class folders, cat/1.png, or below split folders, train/cat/1.png; without classes the files alone, 1.png "
    "or train/1.png"
)


@dataclass(frozen=True)
class File:
    """One sample."""

    path: PurePosixPath
    split: str
    label: str | None
    """The name of its class folder in NFC, as macOS writes names in NFD; None if it lies in none."""


@dataclass(frozen=True)
class Layout:
    """All samples of an archive."""

    files: list[File]
    lone_folder: str | None = None
    """The one folder that would be a class if there were another."""


def read_layout(paths: Sequence[PurePosixPath]) -> Layout:
    """Derives split and label of each file from its path. ``paths`` are sorted.

    Raises:
        InvalidFile: some files are in class folders and others of the same split are not, or folders are too deep.
    """
    if not paths:
        raise InvalidFile(f"the archive holds no file; {_LAYOUT}")
    around = _folders_around(paths)
    parts_of = {path: path.parts[around:] for path in paths}
    if all(len(parts) == 1 for parts in parts_of.values()):
        return Layout([File(path, "train", None) for path in paths])
    files = _in_split_folders(parts_of) if _are_splits(parts_of) else _in_class_folders(parts_of)
    labels = {file.label for file in files if file.label is not None}
    if len(labels) != 1:
        return Layout(files)
    return Layout([replace(file, label=None) for file in files], lone_folder=labels.pop())


def _are_splits(parts_of: Mapping[PurePosixPath, tuple[str, ...]]) -> bool:
    """Whether the outermost folders all have names of splits, with one to train on."""
    tops = {parts[0] for parts in parts_of.values()}
    all_below = all(len(parts) > 1 for parts in parts_of.values())
    return all_below and all(map(is_split_name, tops)) and split_roles(tops).train is not None


def _in_split_folders(parts_of: Mapping[PurePosixPath, tuple[str, ...]]) -> list[File]:
    """Each split has class folders, or files alone."""
    depths: dict[str, Counter[int]] = {}
    for parts in parts_of.values():
        depths.setdefault(parts[0], Counter())[len(parts)] += 1
    files = []
    for path, parts in parts_of.items():
        depth, _ = depths[parts[0]].most_common(1)[0]
        _check_depth(path, len(parts), depth, allowed=(2, 3))
        files.append(File(path, check_split_name(parts[0]), _class_name(parts[1]) if depth == 3 else None))
    check_num_splits(len(depths))
    return files


def _in_class_folders(parts_of: Mapping[PurePosixPath, tuple[str, ...]]) -> list[File]:
    depth, _ = Counter(len(parts) for parts in parts_of.values()).most_common(1)[0]
    at = next(path for path, parts in parts_of.items() if len(parts) == depth)
    _check_depth(at, depth, depth, allowed=(2, 3))
    for path, parts in parts_of.items():
        _check_depth(path, len(parts), depth, allowed=(2, 3))
    files = [File(path, "train" if depth == 2 else parts[0], _class_name(parts[-2])) for path, parts in parts_of.items()]
    splits = {check_split_name(file.split): None for file in files}
    check_num_splits(len(splits))
    if split_roles(splits).train is None:
        shown = ", ".join(map(repr, list(splits)[:10]))
        raise InvalidFile(f"the files are two folders deep below {shown}, which would be splits, and none is 'train'; {_LAYOUT}")
    return files


def _class_name(folder: str) -> str:
    return unicodedata.normalize("NFC", folder)


def _check_depth(path: PurePosixPath, found: int, usual: int, *, allowed: tuple[int, ...]) -> None:
    if usual not in allowed:
        raise InvalidFile(f"{str(path)[:200]!r} is in no class folder; {_LAYOUT}")
    if found != usual:
        where = "beside the class folders" if found < usual else "in a folder inside a class folder"
        raise InvalidFile(f"{str(path)[:200]!r} lies {where}; move it or take it out: {_LAYOUT}")


def _folders_around(paths: Sequence[PurePosixPath]) -> int:
    """The number of enclosing folders, which contain all files and are neither a class nor a split."""
    around = 0
    first, last = paths[0].parts, paths[-1].parts  # of sorted paths, what these share all share
    least = min(len(path.parts) for path in paths)
    while around < least - 2 and first[around] == last[around] and not is_split_name(first[around]):
        around += 1
    return around
