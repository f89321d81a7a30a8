"""Quantization of an ONNX file to 8-bit integers: about a quarter of the size. B batch.

Convolutions are quantized statically, with ranges calibrated on some samples: dynamic convolutions are slower than float32.
Matrix products are quantized dynamically, since a transformer's activations vary too much for one range. Weights use 7 of the 8
bits: a processor without 8-bit dot products adds pairs of products in 16 bits, which would overflow.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.export.onnx import file_inputs

_CALIBRATION_BATCH = 32


def quantize_int8(path: Path, target: Path, *, calibration: Tensor) -> None:
    """Writes the ONNX file ``path`` to ``target`` with 8-bit weights and, where it computes with them, 8-bit activations.

    Outputs differ by some percent: score the result as an :class:`~worker.export.onnx.OnnxNetwork`.

    Args:
        calibration: a hundred or more representative inputs (B, …), from the training split.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    options = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with TemporaryDirectory() as folder, _quiet_quantizer():
        prepared, convolved = Path(folder) / "prepared.onnx", Path(folder) / "convolved.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        if any(node.op_type == "Conv" for node in graph.node):
            samples = _Calibration([given.name for given in graph.input], calibration)
            quantize_static(
                prepared,
                convolved,
                samples,
                op_types_to_quantize=["Conv"],
                activation_type=QuantType.QUInt8,  # the fastest beside signed weights
                **options,
            )
            prepared = convolved
        quantize_dynamic(prepared, target, op_types_to_quantize=["MatMul", "Gather"], **options)


class _Calibration:
    """Calibration data reader of the quantizer."""

    def __init__(self, names: Sequence[str], samples: Tensor) -> None:
        batches = (file_inputs(batch, names) for batch in torch.split(samples.cpu(), _CALIBRATION_BATCH))
        self._batches = iter({name: tensor.numpy() for name, tensor in batch.items()} for batch in batches)

    def get_next(self) -> dict[str, npt.NDArray[np.generic]] | None:
        return next(self._batches, None)


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Silences the quantizer's warnings in the root logger, about layers without channels to quantize by."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)  # with no handler there, logging would install one for good
    root.addFilter(_is_error)
    try:
        yield
    finally:
        root.removeFilter(_is_error)
        root.removeHandler(silent)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
