"""The code that loads a student; it runs as printed."""

import json
from pathlib import Path

from service.spec.tasks import TaskName
from service.spec.transformers_fit import task_of_config

_LOADERS: dict[TaskName, str] = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "sentence-embedding": "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
}


def how_to_load(student: Path) -> str:
    """A few lines of Python that load a student from its folder."""
    config = json.loads((student / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "stillhouse":
        return (
            "from pathlib import Path\n"
            "from stillhouse import load_network\n"
            f"student = load_network(Path({str(student)!r})).network"
        )
    loader = next((name for task, name in _LOADERS.items() if task == task_of_config(config)), "AutoModel")
    return f"from transformers import {loader}\nstudent = {loader}.from_pretrained({str(student)!r})"
