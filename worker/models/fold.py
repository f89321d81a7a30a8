"""Folds two groups of outputs of one linear head into one: a network that reads its own teacher head becomes a plain network.

The network has W + E outputs, a base (W) and a teacher head (E), and computes ``base + reader @ teacher_head``. Both are linear,
so a head of W outputs with summed weights computes the same. Invariant: only the head's weights are new tensors; all others are
the tensors that were given.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def fold_head(state: Mapping[str, Tensor], template: Mapping[str, Tensor], *, reader: Tensor) -> dict[str, Tensor]:
    """Computes the state_dict of a network whose W outputs are ``base + reader @ teacher_head`` of the network of ``state``.

    Heads are found by their shapes: there may be several (LeViT and DeiT average two), with or without biases, linear or
    convolutional. A buffer whose size depends on the number of outputs is refused; no network of the project has one.

    Args:
        state: state_dict of the network with W + E outputs.
        template: state_dict of the same architecture with W outputs; its keys and shapes are the result's.
        reader: (W, E), the weight of each output of the teacher head in each output.

    Raises:
        ValueError: the two architectures differ, or their heads are not linear; the message names the parameter.
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
    """Folds a head's weight or bias (W + E, …) to (W, …)."""
    num_outputs, num_teacher_outputs = reader.shape
    base, teacher_head = torch.split(wide.to(torch.float64), [num_outputs, num_teacher_outputs])
    # In float64: a GPU may multiply float32 matrices in TF32.
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
    # Parameters of a norm, or a weight that is stored in parts, cannot be summed.
    if parameter not in ("weight", "bias") or weight is None or weight.dim() < 2 or not weight.is_floating_point():
        raise ValueError(f"{name} is no weight or bias of a linear layer: such a head cannot be folded")
