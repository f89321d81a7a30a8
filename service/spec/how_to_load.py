"""The code that loads a student; it runs as printed. Pure, no torch."""

from service.spec.tasks import TASKS, TaskName

_READERS = {"image": "AutoImageProcessor", "text": "AutoTokenizer", "audio": "AutoFeatureExtractor"}


def own_lines(folder: str) -> str:
    """Loads one of the project's own networks."""
    return (
        "from pathlib import Path\n"
        "from stillhouse import load_network\n"
        f"student = load_network(Path({folder!r}))\n"
        "network, preprocessing = student.network, student.preprocessing"
    )


def library_lines(task: TaskName, folder: str) -> str:
    """Loads a network of ``transformers``, and what reads its inputs."""
    info = TASKS[task]
    reader = _READERS[info.input_kind]
    return (
        f"from transformers import {info.auto_class}, {reader}\n"
        f"student = {info.auto_class}.from_pretrained({folder!r})\n"
        f"reader = {reader}.from_pretrained({folder!r})\n"
        "student.eval()"
    )
