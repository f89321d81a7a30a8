"""A network's inner outputs, by module path: what feature and relation methods compare.

The paths are those of ``named_modules()``, without the ``model.`` that wraps a network of ``transformers`` and the ``body.`` of a
distillation network.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from worker.methods.batch import Outputs

_MOST_LISTED = 60


class UnknownLayer(ValueError):
    """The network has no module of that path; the text lists those that it has."""


class FeatureExtractor:
    """Calls a network and gives the outputs of some of its modules beside its logits, until it is closed."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        """Raises UnknownLayer."""
        self._network = network
        self._caught: dict[str, Tensor] = {}
        self._listening = False
        self._hooks = [module.register_forward_hook(self._catch(path)) for path, module in find_layers(network, layers).items()]

    def __call__(self, *inputs: Tensor | None) -> Outputs:
        """Inputs (B, …), and whatever else the network takes; logits are (B, W). A network of texts knows its ``pad``."""
        self._listening = True
        try:
            logits = self._network(*inputs)
        finally:
            features, self._caught = self._caught, {}
            self._listening = False
        pad = getattr(self._network, "pad", None)
        return Outputs(logits, features, None if pad is None or inputs[0] is None else inputs[0] != pad)

    def close(self) -> None:
        """Takes the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _catch(self, path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._listening:
                self._caught[path] = _first_tensor(output)

        return hook


def find_layers(network: nn.Module, layers: Sequence[str]) -> Mapping[str, nn.Module]:
    """The modules of these paths. Raises UnknownLayer."""
    there = _layers(network)
    for path in layers:
        if path not in there:
            raise UnknownLayer(f"the network has no layer {path!r}; it has {layer_paths(network)}")
    return {path: there[path] for path in layers}


def layer_paths(network: nn.Module) -> str:
    """What may be named, for an error."""
    paths = list(_layers(network))
    more = f" and {len(paths) - _MOST_LISTED} more" if len(paths) > _MOST_LISTED else ""
    return ", ".join(paths[:_MOST_LISTED]) + more


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    named = {path.removeprefix("body.").removeprefix("model."): module for path, module in network.named_modules()}
    return {path: module for path, module in named.items() if path not in ("", "body", "model")}


def _first_tensor(output: Any) -> Tensor:
    """A module of ``transformers`` may give a tuple or an object, the hidden state first."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    return next(value for value in values if isinstance(value, Tensor))
