"""The layer that computes a network's outputs (B, W), found by what it does, and exact changes of the outputs' scale and offset.

A network has a linear layer (or a 1x1 convolution) of W outputs, last: its outputs are this layer's, or those of one of its
tokens (GPT-2), or a mean, over tokens or over two such layers (DeiT with a teacher, SwiftFormer). Invariant: nothing is taken
from a layer's name or place. A layer is the output layer only if, for random numbers s and m, the network's outputs become
``s · outputs + m`` when the layer's do, so that an activation or a norm behind it is seen. B batch, W outputs, D inputs of the
layer.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.data.tensors import Inputs
from worker.eval_mode import in_eval_mode

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_TOLERANCE = 1e-3
"""Of the largest output: float32 after some layers, and more in a shorter format, where a step that is not linear differs by far
more."""
_MOST_LAYERS = 2
"""No network of the library has the mean of more heads for its outputs."""


class NoOutputLayer(ValueError):
    """No layer's outputs are, up to a choice or a mean, the network's; the message says so of the network."""


class FixedOffset(ValueError):
    """The network has no parameter that its outputs' offset could be held in; the message says so of the network."""


@dataclass(frozen=True)
class OutputLayer:
    """The last layer of a network; several if the network's outputs are their mean."""

    layers: tuple[nn.Module, ...]
    """Linear or convolutional, each with W outputs."""
    norm: nn.LayerNorm | None = None
    """Where the layers have no bias: the layer norm whose outputs (…, D) they read, if it has one."""

    @property
    def width(self) -> int:
        """W."""
        return len(_parameter(self.layers[0].weight))

    @property
    def is_shiftable(self) -> bool:
        """Whether any offset of the outputs can be held by the network's own parameters."""
        return self._with_bias or self.norm is not None

    @property
    def _with_bias(self) -> bool:
        return all(layer.bias is not None for layer in self.layers)

    @torch.no_grad()
    def rescale(self, scale: Tensor, shift: Tensor) -> None:
        """Changes the parameters such that the outputs (B, W) become ``scale · outputs + shift``, both (W,).

        Weights and biases are computed in float64. Without a bias the shift is added to that of the layer norm before:
        ``W · (x + W⁺ · shift) = W · x + shift``.

        Raises:
            FixedOffset: the shift is not 0, and no bias can hold it; nothing is changed.
        """
        shifts = bool(shift.any())
        if shifts and not self.is_shiftable:
            raise FixedOffset("its output layer has no bias, and neither has the norm before it")
        for layer in self.layers:
            weight, bias = _parameter(layer.weight), layer.bias
            factor = scale.to(weight.device, torch.float64)
            weight.copy_(weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1)))
            if bias is not None:
                own = _parameter(bias)
                own.copy_(own.double() * factor + (shift.to(own.device, torch.float64) if self._with_bias else 0))
        if shifts and not self._with_bias and self.norm is not None:
            self.norm.bias.copy_(self.norm.bias.double() + _norm_shift(self.layers, shift).to(self.norm.bias.device))

    @torch.no_grad()
    def reorder(self, order: Sequence[int]) -> None:
        """Changes the parameters such that the outputs (B, W) become ``outputs[:, order]``."""
        for layer in self.layers:
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    own = _parameter(parameter)
                    own.copy_(own[list(order)])

    def shift(self, by: Tensor) -> None:
        """Adds ``by`` (W,) to the outputs (B, W): see :meth:`rescale`."""
        self.rescale(torch.ones_like(by), by)


def output_weights(build: Callable[[int], nn.Module], *, num_outputs: int) -> list[str]:
    """The names of the weights that have a row for each output: those whose shape depends on how many ``build`` is asked for."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        networks = [build(count).state_dict() for count in (num_outputs, num_outputs + 1)]
    shapes, others = ({name: weight.shape for name, weight in weights.items()} for weights in networks)
    return [name for name, shape in shapes.items() if shape != others[name]]


@torch.no_grad()
def select_outputs(network: nn.Module, names: Iterable[str], order: Sequence[int]) -> None:
    """Changes the weights ``names``, which have a row for each output, such that the outputs become ``outputs[…, order]``."""
    for name in names:
        path, _, leaf = name.rpartition(".")
        layer = network.get_submodule(path)
        setattr(layer, leaf, nn.Parameter(network.get_parameter(name)[list(order)].clone()))
        match layer:
            case nn.Linear():
                layer.out_features = len(order)
            case nn.Conv1d() | nn.Conv2d():
                layer.out_channels = len(order)


def find_output_layer(network: nn.Module, inputs: Inputs) -> OutputLayer:
    """Finds the output layer of a network by running it a few times on some ``inputs`` (B, …), in evaluation mode.

    Raises:
        NoOutputLayer: there is none.
    """
    with in_eval_mode(network), torch.random.fork_rng(devices=[]):
        outputs, ran = _traced(network, inputs)
        width = outputs.shape[-1]
        candidates = [module for module in ran if _num_outputs(module) == width]
        generator = torch.Generator().manual_seed(0)
        scale = torch.rand(width, generator=generator).to(outputs) + 0.5
        shift = torch.randn(width, generator=generator).to(outputs) * outputs.abs().max().clamp(min=1)
        for count in range(1, min(len(candidates), _MOST_LAYERS) + 1):
            layers = tuple(candidates[-count:])
            changed = _run_with(network, inputs, layers, lambda layer, out: _affine(layer, out, scale, shift))
            if _alike(changed, outputs * scale + shift):
                return OutputLayer(layers, norm=_find_norm(network, inputs, layers, ran, outputs, shift))
    raise NoOutputLayer(
        f"its {width} outputs are not those of a linear layer: an activation or a norm comes after the last one"
        if candidates
        else f"no linear layer gives its {width} outputs"
    )


def _find_norm(
    network: nn.Module,
    inputs: Inputs,
    layers: Sequence[nn.Module],
    ran: Sequence[nn.Module],
    outputs: Tensor,
    shift: Tensor,
) -> nn.LayerNorm | None:
    """The layer norm whose bias shifts the outputs of layers that have no bias."""
    norms = [module for module in ran if isinstance(module, nn.LayerNorm) and module.bias is not None]
    if all(layer.bias is not None for layer in layers) or not norms:
        return None
    norm, weight = norms[-1], _parameter(layers[0].weight)
    if norm.bias.shape != weight.shape[1:] or torch.linalg.matrix_rank(weight.double()) < len(weight):
        return None
    added = _norm_shift(layers, shift).to(outputs)
    return norm if _alike(_run_with(network, inputs, [norm], lambda _, out: out + added), outputs + shift) else None


def _norm_shift(layers: Sequence[nn.Module], shift: Tensor) -> Tensor:
    """What is added to the layers' inputs (…, D), in float64, to add ``shift`` (W,) to the mean of their outputs."""
    weight = torch.stack([_parameter(layer.weight).double() for layer in layers]).mean(dim=0)
    added: Tensor = torch.linalg.pinv(weight) @ shift.to(weight.device, torch.float64)
    return added


def _num_outputs(module: nn.Module) -> int | None:
    match module:
        case nn.Linear():
            return module.out_features
        case nn.Conv1d() | nn.Conv2d():
            return module.out_channels
    return None


def _affine(layer: nn.Module, outputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``scale · outputs + shift`` along the dimension of a layer's outputs: the last of a linear layer, the second of others."""
    places = (-1, *[1] * (outputs.dim() - 2)) if isinstance(layer, _CONVOLUTIONS) else (-1,)
    return outputs * scale.reshape(places) + shift.reshape(places)


def _traced(network: nn.Module, inputs: Inputs) -> tuple[Tensor, list[nn.Module]]:
    """A network's outputs (B, W), and its innermost modules in the order of their last runs."""
    ran: Counter[nn.Module] = Counter()
    num_runs = 0

    def note(module: nn.Module, *_: Any) -> None:
        nonlocal num_runs
        num_runs += 1
        ran[module] = num_runs

    with ExitStack() as hooks:
        for module in network.modules():
            if not list(module.children()):
                hooks.callback(module.register_forward_hook(note).remove)
        outputs: Tensor = network(inputs)
    return outputs, sorted(ran, key=ran.__getitem__)


def _run_with(
    network: nn.Module, inputs: Inputs, modules: Iterable[nn.Module], change: Callable[[nn.Module, Tensor], Tensor]
) -> Tensor:
    """The network's outputs with those of some of its modules changed."""
    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(lambda module, _, outputs: change(module, outputs)).remove)
        outputs: Tensor = network(inputs)
    return outputs


def _alike(outputs: Tensor, expected: Tensor) -> bool:
    rounding = max(_TOLERANCE, 8 * torch.finfo(expected.dtype).eps)
    tolerance = rounding * max(1.0, float(expected.abs().max()))
    return outputs.shape == expected.shape and bool(((outputs - expected).abs() <= tolerance).all())


def _parameter(value: Any) -> Tensor:
    tensor: Tensor = value
    return tensor
