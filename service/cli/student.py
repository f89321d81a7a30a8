"""How to load a student, as code that runs as it is printed."""

import json
from pathlib import Path


def how_to_load(student: Path) -> str:
    """A few lines of Python for the folder of a student."""
    config = json.loads((student / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "stillhouse":
        return (
            "from pathlib import Path\n"
            "from worker.models import load_network\n"
            f"student = load_network(Path({str(student)!r})).network"
        )
    return (
        "from transformers import AutoModelForImageClassification\n"
        f"student = AutoModelForImageClassification.from_pretrained({str(student)!r})"
    )
