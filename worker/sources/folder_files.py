"""Files of a network's folder that more than its reader knows by name: its model card, and the list of an encoder's modules."""

import json
from pathlib import Path

CARD_FILE = "README.md"
MODULES_FILE = "modules.json"


def module_files(folder: Path) -> list[Path]:
    """The files of the modules that a folder lists, relative to it and inside it; none if the list cannot be read."""
    try:
        listed = json.loads((folder / MODULES_FILE).read_text(encoding="utf-8"))
        paths = [Path(module["path"]) for module in listed if module["path"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [path / "config.json" for path in paths if not path.is_absolute() and ".." not in path.parts]
