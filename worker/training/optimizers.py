"""Builds the spec's optimizer.

AdamW and SGD are fused: one kernel updates all weights of a network, on GPU and CPU. With the small networks of distillation, one
kernel for each weight takes a large part of a CPU step.
"""

from torch import nn, optim

from service.spec.training import Adafactor, AdamW, Optimizer, Sgd


def build_optimizer(network: nn.Module, optimizer: Optimizer) -> optim.Optimizer:
    """An optimizer over the trainable weights of a network, or of several; the loop sets its learning rate before each step.

    Raises:
        ValueError: a spec may name it, and no trainer has it.
    """
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    match optimizer:
        case AdamW():
            return optim.AdamW(
                weights,
                lr=optimizer.learning_rate,
                betas=(optimizer.beta1, optimizer.beta2),
                weight_decay=optimizer.weight_decay,
                fused=True,
            )
        case Sgd():
            return optim.SGD(
                weights,
                lr=optimizer.learning_rate,
                momentum=optimizer.momentum,
                weight_decay=optimizer.weight_decay,
                nesterov=optimizer.nesterov,
                fused=True,
            )
        case Adafactor():
            return optim.Adafactor(weights, lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay)
    raise ValueError(f"no trainer has the optimizer {optimizer.name!r}")
