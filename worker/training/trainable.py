"""Whether a network can be trained as its spec says, told by its shapes: before anything is trained, not when its turn comes."""

from collections.abc import Collection

from torch import nn

from service.spec.training import TrainingSpec
from worker.training.memory import MemorySavings
from worker.training.optimizers import Group, build_optimizer, hidden_matrices
from worker.training.parameter_groups import check_parts, freeze


def check_trainable(network: nn.Module, spec: TrainingSpec, *, made: Collection[str] = ()) -> None:
    """Checks what a :class:`Training` would refuse. ``network`` may be on the ``meta`` device; it is changed as a training does.

    ``made`` are names of its weights that were drawn anew, beside others that know something.

    Raises:
        UnfitTraining: it cannot be trained so, on this host at least.
    """
    check_parts(network, spec, made=made)
    freeze(network, spec.freeze)
    MemorySavings(network, spec)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    build_optimizer([Group(weights)], spec.optimizer, matrices=hidden_matrices(network))
