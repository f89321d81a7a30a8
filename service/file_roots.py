"""What ``file:PATH`` may name: files and folders under the roots that an operator allows, with every link followed.

The API looks when a spec is submitted, and the worker again with its own roots before it reads: links may have moved meanwhile.
"""

from collections.abc import Sequence
from pathlib import Path

from service.errors import InvalidFile


def allowed_file(name: str, roots: Sequence[Path]) -> Path:
    """The file that ``file:NAME`` means, links followed. Raises InvalidFile when it is not under a root that is allowed."""
    path = _allowed_path(name, roots, upload="/v1/datasets")
    if not path.is_file():
        raise InvalidFile(f"there is no file {name!r}")
    return path


def allowed_folder(name: str, roots: Sequence[Path]) -> Path:
    """The folder that ``file:NAME`` means. Raises InvalidFile when it, or a file in it, is not under a root that is allowed."""
    path = _allowed_path(name, roots, upload="/v1/models")
    if not path.is_dir():
        raise InvalidFile(f"there is no folder {name!r}")
    for file in path.rglob("*"):
        _allowed_path(str(file), roots, upload="/v1/models")
    return path


def _allowed_path(name: str, roots: Sequence[Path], *, upload: str) -> Path:
    """The path, links followed; ``upload`` is where the file could be sent instead. Raises InvalidFile."""
    try:
        path = Path(name).resolve()
        inside = any(path.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidFile(f"{name!r} is no path") from error
    if not inside:
        allowed = ", ".join(map(str, roots)) or f"none: upload it with POST {upload} instead"
        raise InvalidFile(f"{name!r} is outside the folders that this service may read ({allowed})")
    return path
