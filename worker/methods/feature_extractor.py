"""Reads the outputs of a network's inner modules, by module path, for methods that compare layers.

The paths are those of ``named_modules()`` without two prefixes: ``model.`` of a network of ``transformers``, and ``body.`` of a
distillation network. B batch, W outputs.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from worker.data.tensors import Inputs, token_ids_of
from worker.data.text.tokenization import NO_TOKEN
from worker.methods.batch import Outputs

_MOST_LISTED = 60


class UnknownLayer(ValueError):
    """Raised if the network has no module of that path; the text lists those that it has."""


class FeatureExtractor:
    """Calls a network and returns the outputs of some of its modules beside its logits, until it is closed."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        """Raises UnknownLayer."""
        self._network = network
        self._caught: dict[str, Tensor] = {}
        self._listening = False
        self._hooks = [module.register_forward_hook(self._catch(path)) for path, module in find_layers(network, layers).items()]

    def __call__(self, inputs: Inputs, *further: Tensor | None) -> Outputs:
        """Takes inputs (B, …) and the network's further arguments; a network of texts has a ``pad``. Logits are (B, W)."""
        self._listening = True
        try:
            logits = self._network(inputs, *further)
        finally:
            features, self._caught = self._caught, {}
            self._listening = False
        return Outputs(logits, features, self._token_mask(inputs))

    def close(self) -> None:
        """Removes the hooks."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _token_mask(self, inputs: Inputs) -> Tensor | None:
        """The places (B, L) of tokens, rather than of padding, for a network of texts."""
        ids = None if getattr(self._network, "pad", None) is None else token_ids_of(inputs)
        return None if ids is None else ids != NO_TOKEN

    def _catch(self, path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._listening:
                self._caught[path] = _first_tensor(output)

        return hook


def find_layers(network: nn.Module, layers: Sequence[str]) -> Mapping[str, nn.Module]:
    """Finds the modules of these paths. Raises UnknownLayer."""
    there = _layers(network)
    for path in layers:
        if path not in there:
            raise UnknownLayer(f"the network has no layer {path!r}; it has {layer_paths(network)}")
    return {path: there[path] for path in layers}


def layer_paths(network: nn.Module) -> str:
    """Lists the paths that a spec may name, for an error."""
    paths = list(_layers(network))
    more = f" and {len(paths) - _MOST_LISTED} more" if len(paths) > _MOST_LISTED else ""
    return ", ".join(paths[:_MOST_LISTED]) + more


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    named = {path.removeprefix("body.").removeprefix("model."): module for path, module in network.named_modules()}
    return {path: module for path, module in named.items() if path not in ("", "body", "model")}


def _first_tensor(output: Any) -> Tensor:
    """Finds the hidden state, which is first in the tuple or object that a module of ``transformers`` may return."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    return next(value for value in values if isinstance(value, Tensor))
