"""Networks computed on shapes alone: what depends on them is known without a weight in memory.

A network that looks at the values of its inputs cannot be computed so, such as one of waveforms, which looks for their ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def is_on_meta(network: nn.Module) -> bool:
    """Whether the network's weights have shapes without values."""
    return any(parameter.is_meta for parameter in network.parameters())


@contextmanager
def with_fake_tensors(network: nn.Module) -> Iterator[None]:
    """Replaces the tensors of a network on the ``meta`` device by fake CPU tensors, as are all that are made inside the block."""
    mode = FakeTensorMode()
    known: dict[int, Tensor] = {}
    replaced: list[tuple[dict[str, Tensor | None], str, Tensor]] = []

    def faked(tensor: Tensor) -> Tensor:
        # Tied weights stay tied.
        if id(tensor) not in known:
            fake = FakeTensor(mode, tensor.detach(), torch.device("cpu"))
            is_weight = isinstance(tensor, nn.Parameter)
            known[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_weight else fake
        return known[id(tensor)]

    try:
        for module in network.modules():
            for own in (module._parameters, module._buffers):
                for name, tensor in own.items():
                    if tensor is not None:
                        replaced.append((own, name, tensor))  # type: ignore[arg-type]
                        own[name] = faked(tensor)  # type: ignore[assignment]
        with mode:
            yield
    finally:
        for own, name, tensor in replaced:
            own[name] = tensor
