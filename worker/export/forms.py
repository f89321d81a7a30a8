"""The files of a spec's ``exports``: written, compared with the student, and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from service.spec.exports import EXPORTS, ExportFormat
from worker.data import Data
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.errors import JobFault
from worker.export.int8 import quantize_int8
from worker.export.onnx import OnnxNetwork, check_onnx, export_onnx
from worker.export.units import rounding_of_units, with_units
from worker.tasks import TASKS
from worker.tasks.task import Measurement
from worker.trained import TrainedNetwork

_LARGEST_DIFFERENCE = 1e-4
_CALIBRATION_SAMPLES = 128


@dataclass(frozen=True)
class Exported:
    """An exported file and its scores."""

    name: str
    num_bytes: int
    largest_difference: float
    """Largest absolute difference from the student's outputs on some test samples, relative to the largest output if above 1;
    numbers are standardised."""
    test: Measurement
    """On the test split."""
    agreement: float
    """Agreement with the student, on the test split."""


def write_onnx(network: nn.Module, path: Path, *, samples: Samples, data: Data) -> None:
    """Writes a network as an ONNX file; ``samples`` gives an example of its inputs.

    Raises:
        UnexportableNetwork: the exporter does not support the network.
    """
    inputs = only_tensor(samples.inputs_from(0, 2))
    exported, input_names = TASKS[data.task].onnx_form(network, samples.preprocessing, data)
    export_onnx(
        exported,
        path,
        example=inputs,
        input_names=input_names,
        output_name="logits",
        dynamic_length=inputs.dim() == 2,  # token ids and waveforms
    )


def export_student(student: TrainedNetwork, folder: Path, formats: Sequence[ExportFormat], *, data: Data) -> list[Exported]:
    """Writes the files of ``formats`` into ``folder``.

    Raises:
        UnexportableNetwork: the exporter does not support the network.
        JobFault: the outputs of the float32 file differ from the student's.
    """
    if not formats:
        return []
    test = student.samples(data.splits["test"])
    with TemporaryDirectory(dir=folder.parent) as scratch:
        plain = (folder if "onnx" in formats else Path(scratch)) / EXPORTS["onnx"].filename
        write_onnx(with_units(student, data.targets), plain, samples=test, data=data)
        paths = {"onnx": plain}
        if "onnx-int8" in formats:
            paths["onnx-int8"] = folder / EXPORTS["onnx-int8"].filename
            train = student.samples(data.splits["train"])
            # A random sample, since rows may be sorted by class; its seed is fixed.
            rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_CALIBRATION_SAMPLES]
            quantize_int8(plain, paths["onnx-int8"], calibration=only_tensor(train.batch(rows).inputs).cpu())
        exported = [_score(paths[name], student, test, data) for name in formats]
        difference = _difference(plain, student, test, data)
    if not difference <= _LARGEST_DIFFERENCE + float(rounding_of_units(data.targets).max()):
        raise JobFault(
            "export_mismatch",
            f"{plain.name} gives other outputs than the student.",
            details={"largest_difference": difference if difference < float("inf") else -1.0},
        )
    return exported


def _score(path: Path, student: TrainedNetwork, test: Samples, data: Data) -> Exported:
    task, network = TASKS[data.task], OnnxNetwork(path)
    outputs, expected = data.targets.standardise(task.predict(network, test)), task.predict(student.network, test)
    agreement = task.agreement(expected, outputs, data.targets).value
    if agreement is None:
        raise RuntimeError("a form of the student does not compare with the student")
    return Exported(
        name=path.name,
        num_bytes=path.stat().st_size,
        largest_difference=_difference(path, student, test, data),
        test=task.measure(outputs, test.labels, data.targets),
        agreement=agreement,
    )


def _difference(path: Path, student: TrainedNetwork, test: Samples, data: Data) -> float:
    return check_onnx(path, student.network, only_tensor(test.inputs_from(0, 64)), read=data.targets.standardise)
