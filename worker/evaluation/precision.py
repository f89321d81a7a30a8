"""The number format of a network's forward pass."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from worker.errors import JobFault


@dataclass(frozen=True)
class Precision:
    """The dtype of autocast; None is plain float32. Weights and optimizer state are always float32."""

    device: torch.device
    dtype: torch.dtype | None

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients must be scaled: float16's range is too small for them as they are."""
        return self.dtype is torch.float16

    def forward_pass(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def choose_precision(name: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """The precision that the spec's ``name`` stands for on this device.

    Raises:
        JobFault: the device cannot train in it.
    """
    on_gpu = device.type == "cuda"
    # Called only for a GPU: the query alone would initialise CUDA.
    bf16_gpu = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    match name:
        case "fp32":
            return Precision(device, None)
        case "auto":
            return Precision(device, torch.bfloat16 if bf16_gpu else None)
        case "bf16" if bf16_gpu or not on_gpu:
            return Precision(device, torch.bfloat16)
        case "fp16" if on_gpu:
            return Precision(device, torch.float16)
        case _:
            raise JobFault(
                "invalid_spec",
                f"training.precision is {name}, which {'this GPU' if on_gpu else 'a CPU'} does not train in.",
                hint="Set precision to auto, or to fp32."
                if on_gpu
                else "Set precision to auto, or ask for a GPU with resources.gpus.",
                details={"precision": name, "device": str(device)},
            )
