"""Networks as ONNX files, which run without torch: export, inference, and comparison with the network.

Invariant: the network is not changed. A copy of it, on the CPU, in float32 and in ``eval()``, is exported and compared, and the
file has no trace of the machine that wrote it. The exporter and the runtime are imported where they are used. B batch, L length.
"""

import copy
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.data.text.tokenization import split_types
from worker.quiet import quiet

_MOST_BYTES = 1536 * 2**20
"""A file of the format holds 2 GiB; above this size torch would write the weights into a second file."""


class UnexportableNetwork(Exception):
    """The network cannot be written as an ONNX file; the message has the exporter's reason."""


class OnnxNetwork(nn.Module):
    """An ONNX file as a network on the CPU, so that it can be scored like any network."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; its warnings are about missed optimisations
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps inputs (B, …) to outputs (B, W), on the inputs' device."""
        names = [given.name for given in self._session.get_inputs()]
        given = {name: tensor.numpy() for name, tensor in file_inputs(inputs.cpu(), names).items()}
        (outputs,) = self._session.run(None, given)
        return torch.from_numpy(outputs).to(inputs.device)


def file_inputs(inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The inputs of a file by their names: one, or the ids and the types of tokens."""
    return dict(zip(names, [inputs] if len(names) == 1 else split_types(inputs), strict=True))


def export_onnx(
    network: nn.Module,
    path: Path,
    *,
    example: Tensor,
    input_names: Sequence[str],
    output_name: str,
    dynamic_length: bool = False,
) -> None:
    """Writes a network, from one tensor (B, …) to one (B, W), as a single file that reads batches of any size.

    Args:
        example: some samples (B, …), for which the network is called with :func:`file_inputs`.
        input_names: one, or two for the ids of tokens and their types.
        dynamic_length: the second dimension, of token ids or waveforms (B, L), may be of any length too.

    Raises:
        UnexportableNetwork: the exporter does not support the network, or the file would be too large for the format.
    """
    num_bytes = 4 * sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    if num_bytes > _MOST_BYTES:
        raise UnexportableNetwork(
            f"{type(network).__name__} has {num_bytes:,} bytes of weights, and an ONNX file takes {_MOST_BYTES:,}: "
            "take a smaller student, or leave the export out"
        )
    subject, example = _on_cpu(network), example.cpu()
    if len(example) == 1:
        example = example.repeat_interleave(2, dim=0)  # 1 would be traced as the only size
    if dynamic_length and example.shape[1] == 1:
        example = example.repeat_interleave(2, dim=1)
    dimensions = {0: "batch", 1: "length"} if dynamic_length else {0: "batch"}
    with torch.no_grad(), _quiet_exporter():
        examples = tuple(file_inputs(example, input_names).values())
        subject(*examples)  # tensors that a network caches in its first forward pass must not be created while tracing
        try:
            program: Any = torch.onnx.export(
                subject,
                examples,
                input_names=list(input_names),
                output_names=[output_name],
                # The others have the same: a name may be given once.
                dynamic_shapes=(dimensions, *[dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC)] * (len(examples) - 1)),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UnexportableNetwork(f"{type(network).__name__} cannot be written as ONNX: {_reason(error)}") from error
        _write(program, path)


def check_onnx(
    path: Path, network: nn.Module, inputs: Tensor, *, read: Callable[[Tensor], Tensor] = lambda outputs: outputs
) -> float:
    """Largest difference between the outputs of file and network, for the inputs (B, …) in batches of several sizes.

    ``read`` makes the network's outputs of the file's. Both run on the CPU in float32. The difference is relative to the largest
    output if that is above 1; NaN gives infinity.
    """
    exported, subject, inputs = OnnxNetwork(path), _on_cpu(network), inputs.cpu()
    largest = 0.0
    with torch.no_grad():
        for size in sorted({1, 2, len(inputs)}):
            outputs = subject(inputs[:size])
            difference = (read(exported(inputs[:size])) - outputs).abs().max() / outputs.abs().max().clamp(min=1)
            largest = max(largest, difference.nan_to_num(nan=math.inf).item())
    return largest


def _on_cpu(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("cpu", torch.float32).eval()


def _write(program: Any, path: Path) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(program.model)  # source paths and stack traces, larger than a small network
    program.save(path, external_data=False)


def _reason(error: BaseException) -> str:
    """Beginning of the underlying error; the exporter's own first line is the same for every error."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or ["no reason given"]
    message = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(cause).__name__}: {message[:500]}"


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences the exporter's logs, and prevents the thread and the semaphore of a progress bar that is never shown.

    A trainer process exits without cleanup, so the semaphore would leak.
    """
    bar: Any = torch.hub.tqdm  # type: ignore[attr-defined]
    monitor_interval, bar.monitor_interval = bar.monitor_interval, 0
    bar.set_lock(threading.RLock())
    try:
        with quiet("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
            # torch.export triggers its own deprecation warning.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        bar.monitor_interval = monitor_interval
