"""Builds the spec's optimizer over groups of weights.

AdamW and SGD are fused: one kernel updates all weights of a network, on GPU and CPU. With the small networks of distillation, one
kernel for each weight takes a large part of a CPU step. Invariant: each of the optimizer's groups is built with its highest
learning rate, which the schedule of a training scales in each step; and ``state_dict`` holds all that a resumed training needs.
"""

import logging
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn, optim

from service.spec.training import Adafactor, AdamW, AdamW8bit, Muon, Optimizer, Sgd
from worker.errors import UnfitTraining
from worker.models.hidden_layers import find_hidden_layers
from worker.quiet import quiet

_PLACE = "optimizer/name"


@dataclass(frozen=True)
class Group:
    """Weights with one learning rate."""

    parameters: Sequence[nn.Parameter]
    scale: float = 1.0
    """Factor of the learning rate."""
    learning_rate: float | None = None
    """The highest one, before the factor; None for the optimizer's own."""


def build_optimizer(
    groups: Sequence[Group], optimizer: Optimizer, *, matrices: Collection[nn.Parameter] = frozenset()
) -> optim.Optimizer:
    """An optimizer over groups of weights, none of them frozen. ``matrices`` are those that Muon takes.

    Raises:
        UnfitTraining: it needs a package that is not installed, or Muon has no matrix to train.
    """
    match optimizer:
        case AdamW():
            return optim.AdamW(_at(groups, optimizer.learning_rate), **_adamw(optimizer), fused=True)
        case AdamW8bit():
            return _adamw_8bit(_at(groups, optimizer.learning_rate), optimizer)
        case Sgd():
            return optim.SGD(
                _at(groups, optimizer.learning_rate),
                momentum=optimizer.momentum,
                weight_decay=optimizer.weight_decay,
                nesterov=optimizer.nesterov,
                fused=True,
            )
        case Adafactor():
            return optim.Adafactor(_at(groups, optimizer.learning_rate), weight_decay=optimizer.weight_decay)
        case Muon():
            return MuonWithAdamW(groups, optimizer, matrices)


def hidden_matrices(network: nn.Module) -> set[nn.Parameter]:
    """The two-dimensional weights of a network's hidden layers: of linear maps, not of embeddings, nor of tables of positions."""
    model = getattr(network, "body", network)
    model = getattr(model, "model", model)
    found = find_hidden_layers(model) if hasattr(model, "config") else None
    linear = [module for module in found[1].modules() if not isinstance(module, nn.Embedding)] if found else []
    weights = [getattr(module, "weight", None) for module in linear]
    return {weight for weight in weights if isinstance(weight, nn.Parameter) and weight.dim() == 2}


class MuonWithAdamW(optim.Optimizer):
    """Muon for matrices and AdamW for all else, as one optimizer, whose groups and states are those of the two."""

    def __init__(self, groups: Sequence[Group], spec: Muon, matrices: Collection[nn.Parameter]) -> None:
        """Raises UnfitTraining if no trained weight is among ``matrices``."""
        ours = _at(_only(groups, matrices, among=True), spec.learning_rate)
        others = _at(_only(groups, matrices, among=False), spec.adamw_learning_rate)
        if not ours:
            raise UnfitTraining(
                _PLACE,
                "muon trains the matrices of hidden layers, and this network trains none: its layers are convolutions, or frozen",
                "Take adamw or sgd, or an architecture with transformer layers.",
            )
        self._parts: list[optim.Optimizer] = [optim.Muon(ours, momentum=spec.momentum, weight_decay=spec.weight_decay)]
        if others:
            self._parts.append(optim.AdamW(others, weight_decay=spec.weight_decay, fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes the step of both."""
        for part in self._parts:
            part.step()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()  # load_state_dict ends here, with groups and states that are new

    def _share(self) -> None:
        """Gives both optimizers this one's groups and states, which are theirs."""
        rest = self.param_groups
        for part in self._parts:
            part.param_groups, rest = rest[: len(part.param_groups)], rest[len(part.param_groups) :]
            part.state = self.state


def _at(groups: Sequence[Group], learning_rate: float) -> list[dict[str, Any]]:
    return [
        {"params": list(group.parameters), "lr": (group.learning_rate or learning_rate) * group.scale}
        for group in groups
        if group.parameters
    ]


def _only(groups: Sequence[Group], matrices: Collection[nn.Parameter], *, among: bool) -> list[Group]:
    return [
        Group([each for each in group.parameters if (each in matrices) == among], group.scale, group.learning_rate)
        for group in groups
    ]


def _adamw(spec: AdamW | AdamW8bit) -> dict[str, Any]:
    return {"betas": (spec.beta1, spec.beta2), "weight_decay": spec.weight_decay}


def _adamw_8bit(groups: list[dict[str, Any]], spec: AdamW8bit) -> optim.Optimizer:
    """Imports bitsandbytes, which takes seconds and logs what it has no use for here."""
    try:
        with quiet("bitsandbytes", below=logging.CRITICAL), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib
            from bitsandbytes.optim.adamw import AdamW8bit as Optimizer8bit
    except ImportError as error:
        raise UnfitTraining(_PLACE, f"adamw-8bit needs the package bitsandbytes: {error}", _INSTALL) from error
    if isinstance(lib, ErrorHandlerMockBNBNativeLibrary):  # each of its functions raises, at the first step
        raise UnfitTraining(_PLACE, "adamw-8bit needs bitsandbytes' library for this machine, which cannot be loaded", _INSTALL)
    built: optim.Optimizer = Optimizer8bit(groups, **_adamw(spec))  # type: ignore[no-untyped-call]
    return built


_INSTALL = "Take adamw or adafactor, or have the operator install bitsandbytes on the workers."
