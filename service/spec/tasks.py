"""What a job can be trained for: one entry for each task, with everything that a spec is checked by. Pure, no torch.

A new task is an entry here and a module of its name in ``worker/tasks``.
"""

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["image-classification", "text-classification", "audio-classification", "sentence-embedding", "causal-lm"]
InputKind = Literal["image", "text", "audio"]


@dataclass(frozen=True)
class TaskInfo:
    """What a spec of one task may say."""

    input_kind: InputKind
    """Kind of the inputs; also the default name of the column that holds them."""
    targets: tuple[str, ...]
    """The columns to predict by default."""


TASKS: dict[TaskName, TaskInfo] = {
    "image-classification": TaskInfo(input_kind="image", targets=("label",)),
    "text-classification": TaskInfo(input_kind="text", targets=("label",)),
    "audio-classification": TaskInfo(input_kind="audio", targets=("label",)),
    "sentence-embedding": TaskInfo(input_kind="text", targets=()),
    "causal-lm": TaskInfo(input_kind="text", targets=()),
}
