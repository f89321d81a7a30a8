"""Initialises a student with some of its teacher's layers, like DistilBERT (Sanh et al., 2019, arXiv:1910.01108).

Invariant: layers are copied whole. All weights of a layer of the student come from one layer of the teacher; weights outside the
layers are copied where name and shape agree, and keep their initialisation elsewhere.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from worker.models.hidden_layers import find_hidden_layers


class UnfitStart(ValueError):
    """The student cannot be initialised with the teacher's layers; the message says what to change."""


def take_teacher_layers(student: nn.Module, teacher: nn.Module, layers: Sequence[int] | None = None) -> list[int]:
    """Copies the teacher's weights into the student; returns the index of the teacher's layer for each layer of the student.

    By default these are evenly spaced, from the first on.

    Raises:
        UnfitStart: one of the two is no network of ``transformers``, or their layers differ in weights or number.
    """
    (ours, our_path, our_count), (theirs, their_path, their_count) = (
        _described(network, role) for network, role in ((student, "student"), (teacher, "teacher"))
    )
    indices = list(layers) if layers is not None else [index * their_count // our_count for index in range(our_count)]
    if len(indices) != our_count:
        raise UnfitStart(f"{len(indices)} layers are named and the student has {our_count}: name one for each")
    if wrong := [index for index in indices if index >= their_count]:
        raise UnfitStart(f"the teacher has {their_count} layers, 0 to {their_count - 1}, and no layer {wrong[0]}")
    if len(set(indices)) < our_count and layers is None:
        raise UnfitStart(f"the student has {our_count} layers and the teacher {their_count}: make it as deep or shallower")
    found: list[tuple[Tensor, Tensor]] = []
    for name, weight in ours.items():
        source = _source(name, our_path=our_path, their_path=their_path, indices=indices)
        other = theirs.get(source)
        if other is not None and other.shape == weight.shape:
            found.append((weight, other))
        elif name.startswith(f"{our_path}."):
            what = "nothing of that name" if other is None else f"{tuple(other.shape)}"
            raise UnfitStart(
                f"the student's {name} is {tuple(weight.shape)}, the teacher's {source} {what}: "
                "give the student its teacher's model_type and widths, or take source random"
            )
    with torch.no_grad():
        for weight, other in found:
            weight.copy_(other)
    return indices


def _described(network: nn.Module, role: str) -> tuple[Mapping[str, Tensor], str, int]:
    """Returns a network's weights, the path of its layers and their number."""
    model = getattr(getattr(network, "body", network), "model", None)
    found = None if model is None else find_hidden_layers(model)
    if model is None or found is None:
        raise UnfitStart(f"the {role} has no list of layers as networks of transformers have: take source random")
    path, layers = found
    return model.state_dict(), path, len(layers)


def _source(name: str, *, our_path: str, their_path: str, indices: Sequence[int]) -> str:
    """Name in the teacher of a weight of the student."""
    if not name.startswith(f"{our_path}."):
        return name
    index, _, rest = name.removeprefix(f"{our_path}.").partition(".")
    return f"{their_path}.{indices[int(index)]}.{rest}"
