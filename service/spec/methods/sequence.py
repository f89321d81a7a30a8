"""Methods for causal language models: on the distributions of the next token, or on texts that a network writes itself."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Temperature, Weight, Weighted

Share = Annotated[float, Field(ge=0, le=1)]
TokenCount = Annotated[int, Field(ge=1, le=65_536)]


class ForwardKl(Weighted):
    """The teacher's distribution of each next token is the student's target: it covers all that the teacher holds likely."""

    name: Literal["forward-kl"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class ReverseKl(Weighted):
    """The student is to write nothing that the teacher holds unlikely, and need not cover all that the teacher could write."""

    name: Literal["reverse-kl"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class JensenShannon(Weighted):
    """Between the forward and the reverse divergence: both networks are compared with a mixture of the two."""

    name: Literal["jsd"]
    """Which method this is."""
    beta: Share = 0.5
    """β, the teacher's share of the mixture; 0 is ``forward-kl``, 1 is ``reverse-kl``."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class SequenceLevel(Weighted):
    """The student learns whole texts that the teacher wrote: each prompt's continuation, written once, before the training."""

    name: Literal["sequence"]
    """Which method this is."""
    decoding: Literal["beams", "sampling"] = "beams"
    """``beams``: the likeliest text that a beam search finds. ``sampling``: one drawn from the teacher's distribution."""
    num_beams: Annotated[int, Field(ge=1, le=64)] = 5
    """Of the beam search; 1 takes the likeliest token each time."""
    sampling_temperature: Temperature = 1.0
    """By which the teacher's logits are divided before a token is drawn."""
    max_new_tokens: TokenCount = 128
    """Most tokens that the teacher writes for a prompt."""
    prompt_tokens: TokenCount = 32
    """Of a text without an answer of its own, so many first tokens are the prompt."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens, beside the teacher's."""


class OnPolicy(Weighted):
    """The student learns from the teacher on texts that it writes itself, where its own mistakes lead."""

    name: Literal["on-policy"]
    """Which method this is."""
    beta: Share = 0.5
    """β of the generalised Jensen–Shannon divergence: 0 is the forward KL divergence, 1 the reverse."""
    student_share: Share = 0.5
    """λ, the share of steps on texts of the student's own; the others are on the data's."""
    sampling_temperature: Temperature = 0.9
    """By which the student's logits are divided before a token is drawn."""
    max_new_tokens: TokenCount = 128
    """Most tokens that the student writes for a prompt."""
    prompt_tokens: TokenCount = 32
    """Of a text without an answer of its own, so many first tokens are the prompt."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided in the divergence."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens, in the steps that are on them."""


class UniversalLogit(Weighted):
    """For networks with different tokenizers: probabilities are compared by rank, the largest with the largest."""

    name: Literal["uld"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    weight: Weight = 1.5
    """Of the method's own loss."""
