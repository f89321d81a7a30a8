"""The files of a spec's ``exports``: written, compared with the student, and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from service.spec.exports import EXPORTS, ExportFormat
from service.spec.tasks import TASKS
from worker.data import Data
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.data.text import TextPreprocessing
from worker.data.tokenization import NO_TOKEN
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult, agreement, predict, score_labelled
from worker.evaluation.metrics import target_metrics
from worker.export.int8 import quantize_int8
from worker.export.onnx import OnnxNetwork, check_onnx, export_onnx
from worker.export.units import rounding_of_units, with_units
from worker.trained import TrainedNetwork

_INPUT_NAMES = {"image": "pixel_values", "text": "input_ids", "audio": "input_values"}
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
    test: EvaluationResult | None
    """None if the test split has no labels."""
    metrics: dict[str, dict[str, float]]
    """Metrics by target, on the test split."""
    agreement: float
    """Agreement with the student, on the test split."""


def write_onnx(network: nn.Module, path: Path, *, samples: Samples, data: Data) -> None:
    """Writes a network as an ONNX file; ``samples`` gives an example of its inputs.

    Raises:
        UnexportableNetwork: the exporter does not support the network.
    """
    kind = TASKS[data.task].input_kind
    inputs = only_tensor(samples.inputs_from(0, 2))
    if isinstance(samples.preprocessing, TextPreprocessing):
        network = _ReadingPadded(network, samples.preprocessing.tokenizer.pad_token_id)
    export_onnx(
        network,
        path,
        example=inputs,
        input_name=_INPUT_NAMES[kind],
        output_name="logits",
        dynamic_length=inputs.dim() == 2,  # token ids and waveforms
    )


class _ReadingPadded(nn.Module):
    """A text network that reads rows as its tokenizer pads them, since the users of a file have no other way to say it."""

    def __init__(self, network: nn.Module, pad: int) -> None:
        super().__init__()
        self.network, self.pad = network, pad

    def forward(self, ids: Tensor) -> Tensor:
        """Maps token ids (B, L) to outputs (B, W)."""
        outputs: Tensor = self.network(ids.masked_fill(ids == self.pad, NO_TOKEN))
        return outputs


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
    network = OnnxNetwork(path)
    outputs, expected = data.targets.standardise(predict(network, test)), predict(student.network, test)
    share = agreement(expected, outputs, data.targets)
    if share is None:
        raise RuntimeError("a language model has no such export")
    return Exported(
        name=path.name,
        num_bytes=path.stat().st_size,
        largest_difference=_difference(path, student, test, data),
        test=score_labelled(outputs, test.labels, data.targets),
        metrics=target_metrics(outputs, test.labels, data.targets),
        agreement=share,
    )


def _difference(path: Path, student: TrainedNetwork, test: Samples, data: Data) -> float:
    return check_onnx(path, student.network, only_tensor(test.inputs_from(0, 64)), read=data.targets.standardise)
