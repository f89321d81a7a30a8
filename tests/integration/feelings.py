"""Texts of two words that tell one of three feelings."""

import json
from pathlib import Path

WORDS = {
    "anger": ["fury", "rage", "wrath", "ire"],
    "joy": ["glee", "mirth", "bliss", "cheer"],
    "sadness": ["gloom", "grief", "woe", "sorrow"],
}
CLASSES = list(WORDS)


def write_texts(path: Path, *, classes: list[str] = CLASSES, count: int = 240) -> Path:
    """The texts, whose classes are called as ``classes`` says."""
    lines = []
    for index in range(count):
        words = WORDS[CLASSES[index % 3]]
        text = f"{words[index // 3 % 4]} {words[index // 12 % 4]}"
        lines.append(json.dumps({"text": text, "label": classes[index % 3]}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
