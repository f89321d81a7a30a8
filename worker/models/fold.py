"""Folds two groups of outputs of one linear head into one: a network that reads its own teacher head becomes a plain network.

A network with W + E outputs gives a base (W) and a teacher head (E), and its answer is ``base + reader @ teacher_head``. Both are
linear, so the same answer comes from W outputs whose weights are added up once. Invariant: only the head's weights are written
anew; everything else is the very tensor that was given.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def fold_head(state: Mapping[str, Tensor], template: Mapping[str, Tensor], *, reader: Tensor) -> dict[str, Tensor]:
    """Computes the state_dict of a network whose W outputs are ``base + reader @ teacher_head`` of the network of ``state``.

    Heads are told by their shapes, so there may be several (LeViT and DeiT average two), with or without biases, linear or
    convolutions. No network of the project has a buffer whose size depends on the number of outputs; one that had is refused.

    Args:
        state: of the network with W + E outputs.
        template: of the same architecture with W outputs; its keys and shapes are the result's.
        reader: (W, E), what each output takes from the teacher head.

    Raises:
        ValueError: the two are not of one architecture, or their heads are not linear; the parameter is named.
    """
    if unmatched := sorted(state.keys() ^ template.keys()):
        raise ValueError(f"{unmatched[0]} is in one of the two networks only: build both from the same architecture")
    heads = [name for name in template if state[name].shape != template[name].shape]
    if not heads:
        raise ValueError(
            f"no parameter is larger by the {reader.shape[1]} outputs of the teacher head: build the wide network with them"
        )
    for name in heads:
        _check_head(name, state, template, reader=reader)
    return {name: _folded(state[name], reader) if name in heads else state[name] for name in template}


def _folded(wide: Tensor, reader: Tensor) -> Tensor:
    """(W + E, …) to (W, …)."""
    num_outputs, num_teacher_outputs = reader.shape
    base, teacher_head = torch.split(wide.to(torch.float64), [num_outputs, num_teacher_outputs])
    # In float64: a GPU may multiply float32 in fewer digits.
    read: Tensor = torch.tensordot(reader.to(teacher_head), teacher_head, dims=1)
    return (base + read).to(wide.dtype)


def _check_head(name: str, state: Mapping[str, Tensor], template: Mapping[str, Tensor], *, reader: Tensor) -> None:
    outputs, teacher_outputs = reader.shape
    wide, narrow = state[name].shape, template[name].shape
    if wide[:1] != (outputs + teacher_outputs,) or narrow[:1] != (outputs,) or wide[1:] != narrow[1:]:
        raise ValueError(
            f"{name} is {tuple(wide)} with {outputs + teacher_outputs} outputs and {tuple(narrow)} with {outputs}: "
            "only a head whose first dimension is the number of outputs can be folded"
        )
    module, _, parameter = name.rpartition(".")
    weight = template.get(f"{module}.weight" if module else "weight")
    # What a norm keeps for each output, or a weight that is stored in parts, does not add up.
    if parameter not in ("weight", "bias") or weight is None or weight.dim() < 2 or not weight.is_floating_point():
        raise ValueError(f"{name} is no weight or bias of a linear layer: such a head cannot be folded")
