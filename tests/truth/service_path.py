"""What the service computes of a teacher's folder and a data file, by the functions that a job calls."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.errors import InvalidFile
from service.spec.data import DatasetSpec
from service.spec.tasks import TaskName
from tests.truth.subject import Outcome
from worker.data import Data, UnusableData, load_data
from worker.data.errors import NoCanvas
from worker.data.images.canvas_choice import read_geometry
from worker.errors import JobFault
from worker.models import UnfitArchitecture, UnreadableNetwork
from worker.sources.data_files import data_file, write
from worker.tasks import TASKS
from worker.trained import load_teacher

TOLERANCE = 1e-3
"""Of how much the outputs differ between samples: one level of 8-bit pixels shows more."""
ROUNDING = 1e-5
"""Of the outputs themselves: what another order of additions in float32 leaves."""


def read_as_a_job(dataset: DatasetSpec, path: Path, task: TaskName, **options: Any) -> Data:
    """The data of a file, by the shards that a host makes of it."""
    shards = path.with_name(f"{path.name}.shards")
    shards.mkdir()
    try:
        write(data_file(dataset, task, path.name), path, shards)
    except InvalidFile as error:
        raise UnusableData(error.detail) from error
    return load_data(dataset, shards, task=TASKS[task], **options)


def service_outputs(task: TaskName, folder: Path, file: Path, **dataset: object) -> dict[str, Tensor]:
    """The teacher's outputs (N,) on the test split, by class name."""
    read = DatasetSpec(source=f"file:{file}", input=TASKS[task].info.input_kind, **dataset)  # type: ignore[arg-type]
    geometry = read_geometry(folder)
    data = read_as_a_job(read, file, task, given={} if geometry is None else {"teacher": geometry})
    teacher = load_teacher(folder, source="model:one", data=data)
    outputs = teacher.outputs(data.splits["test"])
    return dict(zip(data.targets.classes, outputs.unbind(1), strict=True))


def compared(
    service: Callable[[], Mapping[str, Tensor]], library: Callable[[], Mapping[str, Tensor]], classes: Sequence[str]
) -> Outcome:
    """Compares the outputs by class name.

    Raises:
        AssertionError: they differ, or the service reads what the library cannot. A file that it cannot read is no refusal of the
            network, and raises.
    """
    try:
        ours = service()
    except (JobFault, NoCanvas, UnreadableNetwork, UnfitArchitecture) as error:
        return Outcome(f"{getattr(error, 'message', error)} {getattr(error, 'hint', '')}")
    try:
        theirs = library()
    except (ValueError, RuntimeError, TypeError) as error:
        raise AssertionError(f"the library cannot compute it ({error}), the service can") from error
    mine, right = (torch.stack([outputs[name] for name in classes]) for outputs in (ours, theirs))
    spread, size = (right.amax(dim=1) - right.amin(dim=1)).max().item(), right.abs().max().item()
    assert spread > 2 * ROUNDING * size, f"the network does not tell the samples apart: {right}"
    difference = (mine - right).abs().max().item()
    allowed = max(TOLERANCE * spread, ROUNDING * size)
    assert difference <= allowed, f"outputs differ by {difference:.2g} of {spread:.2g}: {mine} is to be {right}"
    return Outcome()
