"""Text of a model card: names in one line, and programs that load a student and print what it predicts.

Invariant: a program runs as it stands beside the folder ``student``, once the files that it names are there.
"""

from textwrap import dedent

_OWN_SEVERAL = """\
    for target, outputs in zip(student.targets, student.targets.split(logits[0])):
        print(target.name, outputs.item() if target.classes is None else target.classes[int(outputs.argmax())])
    """
_LIBRARY_SEVERAL = """\
    outputs = iter(logits[0].tolist())
    for target, classes in json.loads(Path("student/labels.json").read_text(encoding="utf-8")).items():
        if classes is None:
            print(target, next(outputs))
        else:
            print(target, max(classes, key={name: next(outputs) for name in classes}.get))
    """


def one_line(text: str) -> str:
    """Returns text that can neither end a line of Markdown nor open a code span."""
    return " ".join(text.replace("`", "'").split())


def own_program(imports: str, reader: str, *, is_one_choice: bool) -> str:
    """Writes the program of one of the project's own networks: ``reader`` makes ``inputs`` of a file."""
    parts = [
        f"from pathlib import Path\n\n{imports}\n",
        'student = load_network(Path("student"))\n',
        reader,
        "with torch.no_grad():\n    logits = student.network(inputs)\n",
        "print(student.classes[int(logits.argmax())])" if is_one_choice else dedent(_OWN_SEVERAL),
    ]
    return "".join(parts).rstrip()


def library_program(reader: str, *, is_one_choice: bool) -> str:
    """Writes the program of a network of ``transformers``: ``reader`` loads ``student`` and makes ``inputs``."""
    parts = [
        "" if is_one_choice else "import json\nfrom pathlib import Path\n\n",
        "import torch\n",
        reader,
        "with torch.no_grad():\n    logits = student(**inputs).logits\n",
        "print(student.config.id2label[int(logits.argmax())])" if is_one_choice else dedent(_LIBRARY_SEVERAL),
    ]
    return "".join(parts).rstrip()
