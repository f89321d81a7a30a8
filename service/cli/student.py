"""The code that loads a student; it runs as printed."""

import json
from pathlib import Path

from service.spec.tasks import TASKS
from service.spec.transformers_fit import task_of_config


def how_to_load(student: Path) -> str:
    """A few lines of Python that load a student from its folder."""
    config = json.loads((student / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "stillhouse":
        return (
            "from pathlib import Path\n"
            "from stillhouse import load_network\n"
            f"student = load_network(Path({str(student)!r})).network"
        )
    task = task_of_config(config)
    loader = "AutoModel" if task is None else TASKS[task].auto_class
    return f"from transformers import {loader}\nstudent = {loader}.from_pretrained({str(student)!r})"
