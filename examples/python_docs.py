"""A dataset of short English texts: what Python's own library says of its functions, by the part of the library that they are in.

    python examples/python_docs.py docs.csv
    python examples/python_docs.py chats.jsonl

A CSV has the columns ``text``, ``label`` and ``split``. A file of JSON Lines has conversations about the texts, in
``messages``. It is read from the sources of the Python that runs this, imports none of them, and is the same at each run. There
are few texts of each class, as in most tasks that people label by hand: a network that has read English before is worth much
here, and one that begins with nothing learns little.
"""

import ast
import csv
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

CLASSES = {
    "concurrency": ("asyncio", "multiprocessing", "concurrent", "threading.py", "queue.py", "selectors.py"),
    "mail": ("email", "mailbox.py", "smtplib.py", "imaplib.py", "poplib.py"),
    "numbers": ("decimal.py", "_pydecimal.py", "fractions.py", "statistics.py", "random.py", "numbers.py", "_pydatetime.py"),
    "tests": ("unittest", "doctest.py"),
    "web": ("http", "urllib", "html", "wsgiref", "xmlrpc"),
    "files": ("pathlib.py", "shutil.py", "tarfile.py", "zipfile.py", "tempfile.py", "os.py", "glob.py", "importlib"),
}
NUM_TRAIN, NUM_HELD_OUT = 40, 30
"""Texts of each class for training; for validation, and as many for the test."""
_LEAST_WORDS, _MOST_WORDS = 4, 18


class Text(NamedTuple):
    """One row."""

    text: str
    label: str
    split: str


def texts() -> list[Text]:
    """All rows, each text once: of every class the ones with the least SHA-256."""
    rows = []
    library = Path(sysconfig.get_paths()["stdlib"])
    for label, places in CLASSES.items():
        found = {text for place in places for file in _sources(library / place) for text in _docstrings(file)}
        chosen = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())[: NUM_TRAIN + 2 * NUM_HELD_OUT]
        splits = ["train"] * NUM_TRAIN + ["validation"] * NUM_HELD_OUT + ["test"] * NUM_HELD_OUT
        rows += [Text(text, label, split) for text, split in zip(chosen, splits, strict=True)]
    return rows


def chats() -> list[dict[str, Any]]:
    """Of each text a conversation: what it is about, and how it goes on after its first words."""
    rows = []
    for text, label, split in texts():
        words = text.split()
        turns = [f"What is this of? {text}", label, f"How does it go on? {' '.join(words[:3])}", " ".join(words[3:])]
        rows.append({"messages": [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]})
        rows[-1]["split"] = split
    return rows


def write(path: Path) -> None:
    """Writes chats as JSON Lines, by the file's suffix, else the texts as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in chats())
        else:
            csv.writer(file).writerows([Text._fields, *texts()])


def _sources(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def _docstrings(file: Path) -> Iterator[str]:
    """The first paragraph of what each function and class of a module says of itself."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if _LEAST_WORDS <= len(text.split()) <= _MOST_WORDS:
                yield text


if __name__ == "__main__":
    write(Path(sys.argv[1]))
