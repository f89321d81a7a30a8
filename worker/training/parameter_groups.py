"""Which weights of a network a training changes, and at which highest learning rate each.

Modules are named by their paths in the library's model, or in a network of the project's own. Invariant: a frozen module comes
out of a training as it went in, weights and running statistics alike. Its dropout goes on as in the rest of the network.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from service.spec.training import TrainingSpec
from worker.data.samples import Samples
from worker.data.tensors import Inputs
from worker.errors import UnfitTraining
from worker.models.adapters import adapter_of, update_weights
from worker.models.depth import head_weights, inner_model, layer_paths, weight_depths
from worker.training.optimizers import Group

_MOST_LISTED = 40
_MOST_TOKENS = 16


def check_parts(network: nn.Module, spec: TrainingSpec, *, made: Collection[str] = ()) -> None:
    """Checks that a network, which may be on the ``meta`` device, has the parts that its training names.

    ``made`` are names of its weights that were drawn anew, beside others that know something.

    Raises:
        UnfitTraining: it lacks one, or what could be trained, or has to be, is frozen.
    """
    modules = _frozen_modules(network, spec.freeze)
    kept = {weight for module in modules.values() for weight in module.parameters()}
    frozen = tuple(f"{path}." for path in modules)
    if stuck := [name for name in made if name.startswith(frozen)]:
        message = f"{', '.join(stuck)} was made anew for the job's outputs, and frozen it would stay noise"
        raise UnfitTraining("freeze", message, "Leave the head out of freeze.")
    if modules and adapter_of(network) is not None and kept.issuperset(update_weights(network)):
        message = "these modules have all layers that the adapter updates, and it would stay as it began"
        raise UnfitTraining("freeze", message, "Name fewer modules, or leave the adapter out.")
    if spec.layer_decay < 1 and not layer_paths(network):
        raise UnfitTraining("layer_decay", "the network has no list of layers", "Leave layer_decay out.")
    if spec.head_learning_rate is not None and not head_weights(network):
        message = "the network has no output layer with weights of its own: it has none, or its embedding is the output layer too"
        raise UnfitTraining("head_learning_rate", message, "Leave head_learning_rate out.")
    if spec.head_learning_rate is not None and not any(each.requires_grad for each in set(head_weights(network)) - kept):
        why = "freeze names it" if adapter_of(network) is None else "it is kept, and the adapter does not update it"
        message = f"the network's output layer stays as it is: {why}"
        raise UnfitTraining("head_learning_rate", message, "Leave head_learning_rate out.")


def freeze(network: nn.Module, paths: Sequence[str]) -> list[nn.Module]:
    """Freezes the modules that ``paths`` name: their weights, and what else has the same, get no gradients.

    Returns the norms with running statistics that are frozen, as the body of an adapter is, and stay in evaluation mode.

    Raises:
        UnfitTraining: a path names no module with weights, or no weight is left to train.
    """
    inside = set()
    for module in _frozen_modules(network, paths).values():
        inside |= set(module.requires_grad_(False).modules())
    norms = [module for module in network.modules() if isinstance(module, _NormBase)]
    return [norm for norm in norms if norm in inside or (norm.weight is not None and not norm.weight.requires_grad)]


def parameter_groups(network: nn.Module, spec: TrainingSpec, samples: Samples) -> list[Group]:
    """Groups the weights that are not frozen by their learning rates. ``samples`` are some that the network reads.

    Raises:
        UnfitTraining: the network lacks a part that the spec names.
    """
    check_parts(network, spec)
    head = set() if spec.head_learning_rate is None else set(head_weights(network))
    depths = {} if spec.layer_decay == 1 else weight_depths(network, _short(samples.inputs_from(0, 1)))
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups[depths.get(parameter, 0), parameter in head].append(parameter)
    return [
        Group(parameters, spec.layer_decay**depth, spec.head_learning_rate if is_head else None)
        for (depth, is_head), parameters in groups.items()
    ]


def _short(inputs: Inputs) -> Inputs:
    """Of rows of tokens the beginning: in which order layers run does not depend on their length."""
    if isinstance(inputs, Tensor) and inputs.dim() == 2 and not inputs.is_floating_point():
        return inputs[:, :_MOST_TOKENS]
    return inputs


def _frozen_modules(network: nn.Module, paths: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that ``paths`` name, by their own."""
    model = inner_model(network)
    there = {path: module for path, module in model.named_modules() if path and next(module.parameters(), None) is not None}
    found = [path for index, pattern in enumerate(paths) for path in _matching(pattern, list(there), index=index)]
    named = {path: there[path] for path in found}
    kept = {parameter for module in named.values() for parameter in module.parameters()}
    if named and kept.issuperset(parameter for parameter in network.parameters() if parameter.requires_grad):
        raise UnfitTraining("freeze", "these modules have all of its weights, and none is left to train", "Name fewer modules.")
    return named


def _matching(pattern: str, paths: Sequence[str], *, index: int) -> list[str]:
    """The paths that a pattern names. Raises UnfitTraining if there are none."""
    wanted = re.compile(".*".join(map(re.escape, pattern.split("*"))))
    if found := [path for path in paths if wanted.fullmatch(path)]:
        return found
    inside = pattern.partition("*")[0]
    while inside and inside not in paths:
        inside = inside.rpartition(".")[0]
    near = [path for path in paths if path.rpartition(".")[0] == inside]
    more = f" and {len(near) - _MOST_LISTED} more" if len(near) > _MOST_LISTED else ""
    where = f"in {inside!r} there are" if inside else "there are"
    message = f"no module with weights is named {pattern!r}; {where} {', '.join(near[:_MOST_LISTED]) or 'none'}{more}"
    raise UnfitTraining(f"freeze/{index}", message, "Name modules of the network by their paths.")
