"""How deep each weight of a network lies: how many layers are above it, counted from the outputs down.

Layers are a network's hidden layers, or the stages of one of the project's own. Where a weight outside them lies is told by when
its module first runs, since models list their last norm before or after their layers as they please. Invariant: every number from
0, of what is next to the outputs, to the largest is some weight's.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import nn

from worker.data.tensors import Inputs
from worker.eval_mode import in_eval_mode
from worker.models.hidden_layers import find_hidden_layers


def inner_model(network: nn.Module) -> Any:
    """The network whose modules a spec names by their paths: the library's model, or one of the project's own."""
    body = getattr(network, "body", network)
    return getattr(body, "model", body)


def layer_paths(network: nn.Module) -> list[str]:
    """The paths in :func:`inner_model` of the layers, or of the last modules of the stages, input first; empty if it has none."""
    model = inner_model(network)
    if not hasattr(model, "config"):
        return list(getattr(model, "stage_layers", ()))
    found = find_hidden_layers(model)
    return [] if found is None else [f"{found[0]}.{index}" for index in range(len(found[1]))]


def head_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the output layer; of the library's models, of all that is outside the base model, which a checkpoint of
    another task lacks. Empty if the network has none of its own: an encoder, or a language model whose head is its embedding.
    """
    model = inner_model(network)
    if not hasattr(model, "config"):
        return list([module for module in model.modules() if list(module.parameters(recurse=False))][-1].parameters())
    below = set(model.base_model.parameters())
    return [parameter for parameter in model.parameters() if parameter not in below]


def weight_depths(network: nn.Module, inputs: Inputs) -> dict[nn.Parameter, int]:
    """The depth of each weight, by one run of the network on ``inputs`` (B, …) in evaluation mode; 0 for those of the head."""
    model, layers, head = inner_model(network), layer_paths(network), set(head_weights(network))
    first, last = _runs(network, model, inputs)
    begins = [min((first[path] for path in _below(layer, first)), default=0) for layer in layers]
    ends = [max((last[path] for path in _below(layer, last)), default=0) for layer in layers]

    def level(path: str) -> int:
        """0 for what runs before the first layer, 1 for this layer, and so on up."""
        inside = [index for index, layer in enumerate(layers) if path == layer or path.startswith(f"{layer}.")]
        if inside:
            return inside[0] + 1
        passed = sum(end < first.get(path, 0) for end in ends)
        return 0 if passed == 0 and begins and first.get(path, 0) < begins[0] else passed + 1

    top = len(layers) + 1
    levels = dict.fromkeys(network.parameters(), top)
    for path, module in reversed(list(model.named_modules())):  # a weight that two modules share lies where the first of them is
        levels |= {weight: top if weight in head else level(path) for weight in module.parameters(recurse=False)}
    depths = {each: depth for depth, each in enumerate(sorted(set(levels.values()), reverse=True))}
    return {weight: depths[each] for weight, each in levels.items()}


def _runs(network: nn.Module, model: nn.Module, inputs: Inputs) -> tuple[dict[str, int], dict[str, int]]:
    """When each module of the model first began and last ended, by path, of those that ran."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    clock = count(1)

    def begin(path: str, *_: Any) -> None:
        first.setdefault(path, next(clock))

    def end(path: str, *_: Any) -> None:
        last[path] = next(clock)

    with ExitStack() as hooks, in_eval_mode(network), torch.random.fork_rng(devices=[]):
        for path, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(begin, path)).remove)
            hooks.callback(module.register_forward_hook(partial(end, path)).remove)
        network(inputs)
    return first, last


def _below(path: str, paths: dict[str, int]) -> Iterator[str]:
    return (each for each in paths if each == path or each.startswith(f"{path}."))
