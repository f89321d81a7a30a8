"""Text of a model card: names in one line, and programs that load a student and print what it predicts.

Invariant: a program runs as it stands beside the folder ``student``, once the files that it names are there.
"""

from textwrap import dedent
from typing import Literal

from service.spec.report import Report

_OWN_SEVERAL = """\
    for target, outputs in zip(student.targets, student.targets.split(logits[0])):
        print(target.name, outputs.item() if target.classes is None else target.classes[int(outputs.argmax())])
    """
_OWN_LABELS = """\
    probabilities = logits[0].sigmoid().tolist()
    print([name for name, probability in zip(student.classes, probabilities) if probability > 0.5])
    """
_OWN_MIXED = """\
    for target, outputs in zip(student.targets, student.targets.split(logits[0])):
        if target.classes is None:
            print(target.name, outputs.item())
        elif target.is_multi_label:
            print(target.name, [name for name, logit in zip(target.classes, outputs) if logit > 0])  # a probability above 0.5
        else:
            print(target.name, target.classes[int(outputs.argmax())])
    """
_LIBRARY_SEVERAL = """\
    outputs = iter(logits[0].tolist())
    for target, classes in json.loads(Path("student/labels.json").read_text(encoding="utf-8")).items():
        if classes is None:
            print(target, next(outputs))
        else:
            print(target, max(classes, key={name: next(outputs) for name in classes}.get))
    """
_LIBRARY_LABELS = """\
    probabilities = logits[0].sigmoid().tolist()
    print([student.config.id2label[index] for index, probability in enumerate(probabilities) if probability > 0.5])
    """
_LIBRARY_MIXED = """\
    outputs = iter(logits[0].tolist())
    for target, classes in json.loads(Path("student/labels.json").read_text(encoding="utf-8")).items():
        if classes is None:
            print(target, next(outputs))
        elif isinstance(classes, dict):
            print(target, [name for name in classes["any_of"] if next(outputs) > 0])  # a probability above 0.5
        else:
            print(target, max(classes, key={name: next(outputs) for name in classes}.get))
    """
_OWN = {
    "class": "print(student.classes[int(logits.argmax())])",
    "labels": _OWN_LABELS,
    "several": _OWN_SEVERAL,
    "mixed": _OWN_MIXED,
}
_LIBRARY = {
    "class": "print(student.config.id2label[int(logits.argmax())])",
    "labels": _LIBRARY_LABELS,
    "several": _LIBRARY_SEVERAL,
    "mixed": _LIBRARY_MIXED,
}
OutputsRead = Literal["class", "labels", "several", "mixed"]
"""What a program prints: the one class; those of one target that has any of them; each target's; or each target's, some of which
have any of their classes."""


def outputs_read(report: Report) -> OutputsRead:
    """What a program of this report's student prints."""
    kinds, several = list(report.data.targets.values()), report.data.label_kinds
    if "labels" in several.values():
        return "labels" if len(kinds) == 1 else "mixed"
    return "class" if len(kinds) == 1 and kinds[0] is not None else "several"


def one_line(text: str) -> str:
    """Returns text that can neither end a line of Markdown nor open a code span."""
    return " ".join(text.replace("`", "'").split())


def own_program(imports: str, reader: str, *, read: OutputsRead) -> str:
    """Writes the program of one of the project's own networks: ``reader`` makes ``inputs`` of a file."""
    parts = [
        f"from pathlib import Path\n\n{imports}\n",
        'student = load_network(Path("student"))\n',
        reader,
        "with torch.no_grad():\n    logits = student.network(inputs)\n",
        dedent(_OWN[read]),
    ]
    return "".join(parts).rstrip()


def library_program(reader: str, *, read: OutputsRead) -> str:
    """Writes the program of a network of ``transformers``: ``reader`` loads ``student`` and makes ``inputs``."""
    parts = [
        "import json\nfrom pathlib import Path\n\n" if read in ("several", "mixed") else "",
        "import torch\n",
        reader,
        "with torch.no_grad():\n    logits = student(**inputs).logits\n",
        dedent(_LIBRARY[read]),
    ]
    return "".join(parts).rstrip()
