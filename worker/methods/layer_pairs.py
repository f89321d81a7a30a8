"""Finds the layers that a term compares, and their shapes. B batch, W outputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from service.spec.methods import BetweenLayers, DistillationNetwork, OneForAll, terms_of
from worker.data.tensors import Inputs, to_device, zeros_like
from worker.eval_mode import in_eval_mode
from worker.fake_tensors import is_on_meta, with_fake_tensors
from worker.methods.feature_extractor import FeatureExtractor, find_layers, layer_paths

TEACHER_HEAD = "teacher_head"
"""The layer of a distillation network that predicts the teacher's outputs, (B, W)."""


class UnfitLayers(ValueError):
    """Raised if a method cannot compare the layers; the text says what to change."""


@dataclass(frozen=True)
class LayerPairs:
    """Layers by module path: the student's first is compared with the teacher's first, and so on."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]


def layers_of(term: Any, *, student: nn.Module, teacher: nn.Module) -> LayerPairs:
    """Finds the layers that a term compares: those that the spec names, else those that the networks offer; none for some terms.

    Raises:
        UnfitLayers: the spec names none, and a network offers none.
        UnknownLayer: a network has no such layer.
    """
    match term:
        case DistillationNetwork():
            pairs = LayerPairs((TEACHER_HEAD,), ())
        case OneForAll(student_layers=named):
            pairs = LayerPairs(tuple(named or _offered(student, "stage", "student_layers", role="student")), ())
        case BetweenLayers(layers=named) if named is not None:
            pairs = LayerPairs(tuple(named.student), tuple(named.teacher))
        case BetweenLayers(compares=compares):
            kind = "embedding" if compares == "embedding" else "stage"
            ours, theirs = (
                _offered(network, kind, "layers", role=role) for role, network in (("student", student), ("teacher", teacher))
            )
            shared = min(len(ours), len(theirs))
            first = (shared - 1) // 2 if compares == "middle" else 0
            count = 1 if compares == "middle" else shared
            pairs = LayerPairs(*(side[len(side) - shared :][first : first + count] for side in (ours, theirs)))
        case _:
            return LayerPairs((), ())
    find_layers(student, pairs.student)
    find_layers(teacher, pairs.teacher)
    return pairs


def compares_layers(method: Any) -> bool:
    """Whether a method compares inner layers."""
    return any(isinstance(term, BetweenLayers | OneForAll) for term in terms_of(method))


def privileged_term(method: Any) -> DistillationNetwork | None:
    """Finds the term, if there is one, by which the student reads the teacher's outputs."""
    return next((term for term in terms_of(method) if isinstance(term, DistillationNetwork)), None)


def shapes_of(network: nn.Module, layers: Sequence[str], inputs: Inputs) -> Mapping[str, torch.Size]:
    """Computes the shapes, without the batch, of these layers' outputs on inputs (B, …), in evaluation mode.

    A network on the meta device computes them without values, if its layers look at none.
    """
    with in_eval_mode(network), FeatureExtractor(network, layers) as extractor, _inputs_beside(network, inputs) as readable:
        features = extractor(readable).features
    return {path: feature.shape[1:] for path, feature in features.items()}


def output_width(network: nn.Module, inputs: Inputs) -> int:
    """Computes the width of the network's outputs on inputs (B, …), in evaluation mode."""
    with in_eval_mode(network), _inputs_beside(network, inputs) as readable:
        outputs: Tensor = network(readable)
    return outputs.shape[-1]


@contextmanager
def _inputs_beside(network: nn.Module, inputs: Inputs) -> Iterator[Inputs]:
    """The inputs where the network can read them."""
    if is_on_meta(network):
        with with_fake_tensors(network):
            yield zeros_like(inputs)
    else:
        yield to_device(inputs, next(network.parameters()).device)


def _offered(network: nn.Module, kind: str, field: str, *, role: str) -> tuple[str, ...]:
    offered: tuple[str, ...] = getattr(network, f"{kind}_layers", ())
    if not offered:
        raise UnfitLayers(f"this {role} has no layers of its own choice: name them in {field}. It has {layer_paths(network)}")
    return offered
