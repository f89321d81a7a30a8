"""The distillation methods that may stand in a spec: parameters, defaults, bounds, paper and formula.

``METHODS`` is the whole list; the worker's losses carry one entry for each name in it, which a test compares.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from service.spec.strict import StrictModel


class SoftTargets(StrictModel):
    """The teacher's outputs are the student's targets."""

    name: Literal["soft-targets"] = "soft-targets"
    """Which method this is."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 4.0
    """τ, by which both networks' logits are divided. Above 1 it shows what the teacher holds likely beside its first choice."""
    divergence: Literal["kl", "cross-entropy", "mse"] = "kl"
    """``kl``: τ²·KL(p_t‖p_s). ``cross-entropy``: τ²·H(p_t, p_s). ``mse``: on the logits, τ takes no part."""
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the label's own cross-entropy in the loss; 0 trains without labels."""


MethodSpec = SoftTargets


@dataclass(frozen=True)
class MethodPage:
    """What ``GET /v1/methods`` tells of a method beside its parameters."""

    spec: type[StrictModel]
    summary: str
    formula: str
    paper: str


METHODS: dict[str, MethodPage] = {
    "soft-targets": MethodPage(
        spec=SoftTargets,
        summary="Soft learning: the student learns the teacher's softened outputs, with a share of the labels.",
        formula="L = (1 − label_weight) · τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ)) + label_weight · CE(y, z_s)",
        paper="Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531",
    ),
}
