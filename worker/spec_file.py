"""``spec.json``, beside a result and in the folder of a training; and which parts of a spec decide what is trained."""

import json
from pathlib import Path
from typing import Any

from service.spec import JobSpec

SPEC_FILE = "spec.json"


def write_spec(folder: Path, spec: JobSpec) -> None:
    """Writes ``spec.json``, complete: posting it again repeats the job."""
    text = json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / SPEC_FILE).write_text(text + "\n", encoding="utf-8")


MEASURED_ALONE = {"generations", "speed_seconds"}
"""What of ``evaluation`` has no part in what is trained."""


def training_parts(spec: JobSpec) -> dict[str, Any]:
    """The parts of a spec that decide what is trained. A job's name, labels and priority may change while it waits."""
    parts = {"task", "dataset", "teacher", "student", "method", "training", "evaluation"}
    num_devices = spec.resources.num_devices
    # Sums are split among devices: only the same number of them resumes to the same student.
    trained = spec.model_dump(mode="json", include=parts, exclude={"evaluation": MEASURED_ALONE})
    return trained | ({"num_devices": num_devices} if num_devices > 1 else {})
