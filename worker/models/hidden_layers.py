"""Finds the hidden layers of a network of ``transformers``: the list of equal blocks that is its body.

Invariant: paths are those of ``named_modules()`` of the library's model, as a spec names them.
"""

from typing import Any, cast

from torch import nn


def find_hidden_layers(model: Any) -> tuple[str, nn.ModuleList] | None:
    """Returns the path and the list of a model's blocks, or of its stages, input first; None if it has no such list.

    Among several lists side by side (an audio network has one of convolutions too), takes the last with ``num_hidden_layers``
    blocks, else the one with the most weights.
    """
    outermost: dict[str, nn.ModuleList] = {}
    for path, module in cast(nn.Module, model).named_modules():
        if isinstance(module, nn.ModuleList) and not any(path.startswith(f"{above}.") for above in outermost) and len(module):
            outermost[path] = module
    if not outermost:
        return None
    count = getattr(model.config, "num_hidden_layers", None)
    as_many = [path for path, layers in outermost.items() if len(layers) == count]
    path = as_many[-1] if as_many else max(outermost, key=lambda path: _num_weights(outermost[path]))
    return path, outermost[path]


def _num_weights(layers: nn.ModuleList) -> int:
    return sum(parameter.numel() for parameter in layers.parameters())
