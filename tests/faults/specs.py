"""The jobs that people post during the faults: small ones of several methods, whose students are the same each time."""

from typing import Any

_METHODS: dict[str, dict[str, Any]] = {
    "softened": {"name": "soft-targets", "temperature": 4.0},
    "decoupled": {"name": "dkd"},
    "distances": {"name": "rkd"},
    "hints": {"name": "fitnet"},
    "peers": {"name": "deep-mutual"},
    "attention": {"name": "attention-transfer"},
}
KINDS = tuple(_METHODS)
SUCCESSOR = "of a student"
"""The kind of a job whose teacher is another one's student, of the first kind."""


def spec(kind: str, *, teacher_job: str | None = None) -> dict[str, Any]:
    """A job of a few seconds on a core, with a checkpoint every few hundred milliseconds."""
    steps = {"batch_size": 32, "checkpoint_steps": 30}
    architecture = {"architecture": {"name": "small-cnn", "width": 4}}
    learns_alone = kind != "peers"
    teacher: dict[str, Any] = architecture | ({"training": {"max_steps": 60} | steps} if learns_alone else {})
    if teacher_job is not None:
        teacher = {"source": f"job:{teacher_job}"}
    return {
        "name": kind,
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": teacher,
        "student": {"architecture": {"name": "small-cnn", "width": 2}},
        "method": _METHODS[KINDS[0] if kind == SUCCESSOR else kind],
        "training": {"max_steps": 240} | steps,
        "evaluation": {"control": kind == "attention"},
        "max_attempts": 3,
    }
