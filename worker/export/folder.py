"""The result folder: the student, the teacher that was trained for it, the report, the model card, the spec.

Invariant: the folder appears whole or not at all, and the student loaded from it computes the trained student's outputs.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from worker.data import Data, Split
from worker.data.samples import Samples
from worker.errors import JobFault
from worker.export.units import fold_units, rounding_of_units
from worker.models import UnreadableNetwork, save_network
from worker.models.loading import Loading, StoredWeights
from worker.targets import Targets
from worker.tasks import Task, load_network
from worker.trained import TrainedNetwork, weight_bytes

_TOLERANCE = 1e-4


@contextmanager
def result_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder, which replaces ``path`` if the block ends without an error."""
    unfinished = path.with_name(f"{path.name}.writing")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    if path.exists():
        shutil.rmtree(path)
    unfinished.replace(path)


def export_network(network: TrainedNetwork, folder: Path, *, data: Data) -> int:
    """Writes a network as a folder, with numbers in the data's units; returns the size of its weights in bytes."""
    save_network(fold_units(network, data), folder, preprocessing=network.preprocessing, targets=data.targets)
    return weight_bytes(folder)


def check_export(folder: Path, *, split: Split, targets: Targets, task: Task, device: torch.device, expected: Tensor) -> None:
    """Loads the folder in its files' number format, and compares its outputs on a split with ``expected`` (N, W).

    Numbers are standardised.

    Raises:
        JobFault: the folder cannot be loaded, or the outputs differ by more than rounding.
    """
    try:
        loaded = load_network(folder, loading=Loading(StoredWeights.of(folder).format))
    except UnreadableNetwork as error:
        raise JobFault("export_mismatch", f"The exported {folder.name} cannot be loaded: {error}") from error
    samples = Samples.of(split, loaded.preprocessing, device=device)
    outputs = targets.standardise(task.predict(loaded.network.to(device), samples))
    # The library chooses a tokenizer's class by the model type, which may tokenize differently and give another number of tokens.
    if outputs.shape != expected.shape:
        raise JobFault(
            "export_mismatch",
            f"The exported {folder.name}, loaded again, reads texts as other tokens than the trained one.",
            hint="Train a bpe tokenizer, or take another model_type: the library gives this one a tokenizer of its own class.",
        )
    tolerance = _TOLERANCE * (1 + expected.abs()) + (rounding_of_units(targets).to(expected) if targets.width else 0)
    if not bool(((outputs - expected).abs() <= tolerance).all()):
        raise JobFault(
            "export_mismatch",
            f"The exported {folder.name}, loaded again, gives other outputs than the trained one.",
            details={"largest_difference": float((outputs - expected).abs().max().nan_to_num(nan=-1.0))},
        )
