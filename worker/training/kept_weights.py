"""The weights that leave and enter a training: everything that it may change, and nothing else.

Of a network with an adapter that is the adapter alone: checkpoints and best weights are as small, and the rest is loaded from
where the job has it. Invariant: :func:`restore` gives a network that was built the same way the kept one's state, bit for bit.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from worker.models.adapters import adapter_of

Weights = dict[str, Tensor]
"""Entries of a network's state_dict, on the CPU."""


def kept(network: nn.Module) -> Weights:
    """Copies what training may have changed, of a network without an adapter everything, to the CPU; a tied weight once."""
    copies: dict[_Memory, Tensor] = {}
    weights: Weights = {}
    for name, tensor in _changed(network):
        memory = _memory(tensor)
        if memory not in copies:
            copies[memory] = tensor.detach().to("cpu", copy=True)
        weights[name] = copies[memory]
    return weights


def num_kept_bytes(network: nn.Module) -> int:
    """Bytes of what :func:`kept` copies."""
    return sum({_memory(tensor): tensor.nbytes for _, tensor in _changed(network)}.values())


def restore(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Gives a network the weights that :func:`kept` took.

    Raises:
        RuntimeError: they are another network's.
    """
    adapter = adapter_of(network)
    if adapter is not None and weights.keys() != adapter.names:
        wrong = sorted(weights.keys() ^ adapter.names)
        raise RuntimeError(f"these are the weights of another adapter: {', '.join(wrong[:5])} stand in one of the two alone")
    network.load_state_dict(weights, strict=adapter is None)


_Memory = tuple[int | str, ...]


def _memory(tensor: Tensor) -> _Memory:
    """Which part of which storage a tensor reads, and how: equal for weights that are tied."""
    storage = tensor.untyped_storage()._cdata
    return (storage, tensor.storage_offset(), str(tensor.dtype), *tensor.shape, *tensor.stride())


def _changed(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    adapter = adapter_of(network)
    for name, tensor in network.state_dict().items():
        if adapter is None or name in adapter.names:
            yield name, tensor
