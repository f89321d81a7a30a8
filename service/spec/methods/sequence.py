"""Specs of the methods for causal language models: on distributions of the next token, or on texts that a network writes."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Temperature, Weight, Weighted

Share = Annotated[float, Field(ge=0, le=1)]
TokenCount = Annotated[int, Field(ge=1, le=65_536)]


class TokenMethod(Weighted):
    """A method of causal language models."""

    kind = "next-tokens"
    made_for = "causal language models"
    stands_alone = True


class ForwardKl(TokenMethod):
    """The student learns the teacher's distribution of each next token, and covers all that the teacher finds likely."""

    summary = "Language models: the teacher's distribution of each next token is the student's target."
    formula = "L = weight · τ² · mean over tokens of KL(p_t ‖ p_s) + label_weight · CE"
    paper = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531"

    name: Literal["forward-kl"]
    """The method's name."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Weight of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class ReverseKl(TokenMethod):
    """The student avoids what the teacher finds unlikely, and need not cover all that the teacher could write."""

    summary = "Language models: the student writes nothing that the teacher holds unlikely."
    formula = "L = weight · τ² · mean over tokens of KL(p_s ‖ p_t) + label_weight · CE"
    paper = "Gu, Dong, Wei, Huang: MiniLLM, 2024, arXiv:2306.08543"

    name: Literal["reverse-kl"]
    """The method's name."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Weight of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class JensenShannon(TokenMethod):
    """Between the forward and the reverse KL divergence: both networks are compared with a mixture of their distributions."""

    summary = "Language models: the generalised Jensen–Shannon divergence, between the forward and the reverse one."
    formula = (
        "L = weight · τ² · mean over tokens of (β · KL(p_t ‖ m) + (1 − β) · KL(p_s ‖ m)) + label_weight · CE, "
        "m = β · p_t + (1 − β) · p_s"
    )
    paper = "Agarwal et al.: On-Policy Distillation of Language Models, 2024, arXiv:2306.13649"

    name: Literal["jsd"]
    """The method's name."""
    beta: Share = 0.5
    """β, the teacher's share of the mixture; 0 is ``forward-kl``, 1 is ``reverse-kl``."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Weight of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class SequenceLevel(TokenMethod):
    """The student learns whole texts that the teacher wrote: a continuation of each prompt, written once before the training."""

    summary = "Language models: the student learns whole texts that the teacher wrote."
    formula = "L = weight · CE(teacher's text) + label_weight · CE(data)"
    paper = "Kim, Rush: Sequence-Level Knowledge Distillation, 2016, arXiv:1606.07947"

    name: Literal["sequence"]
    """The method's name."""
    decoding: Literal["beams", "sampling"] = "beams"
    """``beams``: the likeliest text that a beam search finds. ``sampling``: one drawn from the teacher's distribution."""
    num_beams: Annotated[int, Field(ge=1, le=64)] = 5
    """Width of the beam search; 1 takes the likeliest token each time."""
    sampling_temperature: Temperature = 1.0
    """Temperature by which the teacher's logits are divided before a token is drawn."""
    max_new_tokens: TokenCount = 128
    """Largest number of tokens that the teacher writes for a prompt."""
    prompt_tokens: TokenCount = 32
    """Number of first tokens that are the prompt, of a text without an answer of its own."""
    label_weight: Weight = 0.0
    """Weight of the cross-entropy with the data's own tokens, beside the teacher's."""


class OnPolicy(TokenMethod):
    """The student learns from the teacher on texts that it writes itself, where its own mistakes lead."""

    summary = "Language models: the teacher's distributions on texts that the student writes itself, mixed with the data's."
    formula = "L = weight · JSD_β(p_t, p_s) on the student's own texts in a share λ of the steps, on the data's in the others"
    paper = "Agarwal et al.: On-Policy Distillation of Language Models, 2024, arXiv:2306.13649"

    name: Literal["on-policy"]
    """The method's name."""
    beta: Share = 0.5
    """β of the generalised Jensen–Shannon divergence: 0 is the forward KL divergence, 1 the reverse."""
    student_share: Share = 0.5
    """λ, the share of steps on texts that the student writes; the others are on the data's."""
    sampling_temperature: Temperature = 0.9
    """Temperature by which the student's logits are divided before a token is drawn."""
    max_new_tokens: TokenCount = 128
    """Largest number of tokens that the student writes for a prompt."""
    prompt_tokens: TokenCount = 32
    """Number of first tokens that are the prompt, of a text without an answer of its own."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided in the divergence."""
    label_weight: Weight = 0.0
    """Weight of the cross-entropy with the data's own tokens, in the steps on the data's texts."""


class UniversalLogit(TokenMethod):
    """Compares probabilities by rank, the largest with the largest, across different tokenizers."""

    summary = "Language models with different tokenizers: probabilities are compared by rank."
    formula = "L = label_weight · CE + weight · mean over tokens of Σ_i |p_s(i) − p_t(i)|, both in falling order"
    paper = "Boizard, El Haddad, Hudelot, Colombo: Universal Logit Distillation, 2024, arXiv:2402.12030"

    name: Literal["uld"]
    """The method's name."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    weight: Weight = 1.5
    """Weight of the method's own loss."""
