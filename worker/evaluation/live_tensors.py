"""What a network computes and holds: its operations, and the tensors that are alive at once.

Invariant: attention counts as GPUs compute it, without materialising its matrix of probabilities.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

from worker.models.loading import plain_tensors

_KINDS = ("fixed", "growing", "by_loss", "in_chunks")
"""How a tensor's size grows, which a subclass tells apart."""


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The results of operations that are alive at the same time; what was there before takes no part."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {each.untyped_storage()._cdata for network in networks for each in tensors_of(network)}
        self._live: dict[int, tuple[StorageWeakRef, int, str]] = {}
        self._totals = dict.fromkeys(_KINDS, 0)
        """At least what is alive, by kind."""
        self.peak = 0.0
        self.flops = 0
        """Counted here, as torch's counter of them keeps what layers compute twice alive."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        results = function(*arguments, **(options or {}))
        packet = function._overloadpacket
        if (count := _CPU_ATTENTION.get(packet) or flop_registry.get(packet)) is not None:
            self.flops += count(*arguments, **(options or {}), out_val=results)
        given: set[int] | None = None
        for result in tree_leaves(results):
            if not isinstance(result, Tensor):
                continue
            storage = result.untyped_storage()
            place = storage._cdata
            if place in self._known or (place in self._live and not self._live[place][0].expired()):  # type: ignore[no-untyped-call]
                continue
            if given is None:
                leaves = tree_leaves((arguments, options))
                given = {each.untyped_storage()._cdata for each in leaves if isinstance(each, Tensor)}
            if place not in given:  # or else a view of what was there before
                self._forget(place)
                kind = self._kind(result)
                self._live[place] = StorageWeakRef(storage), storage.nbytes(), kind  # type: ignore[no-untyped-call]
                self._totals[kind] += storage.nbytes()
        if self._size() > self.peak:
            for place in [place for place, (reference, *_) in self._live.items() if reference.expired()]:  # type: ignore[no-untyped-call]
                self._forget(place)
            if (size := self._size()) > self.peak:
                self.peak = size
                self._at_peak()
        return results

    def _forget(self, place: int) -> None:
        if (gone := self._live.pop(place, None)) is not None:
            self._totals[gone[2]] -= gone[1]

    def _size(self) -> float:
        return sum(self._totals.values())

    def _kind(self, result: Tensor) -> str:
        return "growing"

    def _at_peak(self) -> None:
        pass


def tensors_of(network: nn.Module) -> Iterator[Tensor]:
    """The tensors that hold its parameters and buffers; of a quantised one several."""
    for each in (*network.parameters(), *network.buffers()):
        yield from (tensor for _, tensor in plain_tensors(each))


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


_CPU_ATTENTION: Mapping[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: shape_wrapper(_attention),  # type: ignore[no-untyped-call]
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: shape_wrapper(_attention_backward),  # type: ignore[no-untyped-call]
}
"""torch's counter knows the kernels of GPUs only."""
