"""Methods for causal language models: on the distributions of the next token, or on texts that a network writes itself."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.methods.terms import Temperature, Weight, Weighted

Share = Annotated[float, Field(ge=0, le=1)]
TokenCount = Annotated[int, Field(ge=1, le=65_536)]


class TokenMethod(Weighted):
    """A method of causal language models."""

    tasks = ("causal-lm",)
    stands_alone = True


class ForwardKl(TokenMethod):
    """The teacher's distribution of each next token is the student's target: it covers all that the teacher holds likely."""

    summary = "Language models: the teacher's distribution of each next token is the student's target."
    formula = "L = weight · τ² · mean over tokens of KL(p_t ‖ p_s) + label_weight · CE"
    paper = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531"

    name: Literal["forward-kl"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class ReverseKl(TokenMethod):
    """The student is to write nothing that the teacher holds unlikely, and need not cover all that the teacher could write."""

    summary = "Language models: the student writes nothing that the teacher holds unlikely."
    formula = "L = weight · τ² · mean over tokens of KL(p_s ‖ p_t) + label_weight · CE"
    paper = "Gu, Dong, Wei, Huang: MiniLLM, 2024, arXiv:2306.08543"

    name: Literal["reverse-kl"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class JensenShannon(TokenMethod):
    """Between the forward and the reverse divergence: both networks are compared with a mixture of the two."""

    summary = "Language models: the generalised Jensen–Shannon divergence, between the forward and the reverse one."
    formula = (
        "L = weight · τ² · mean over tokens of (β · KL(p_t ‖ m) + (1 − β) · KL(p_s ‖ m)) + label_weight · CE, "
        "m = β · p_t + (1 − β) · p_s"
    )
    paper = "Agarwal et al.: On-Policy Distillation of Language Models, 2024, arXiv:2306.13649"

    name: Literal["jsd"]
    """Which method this is."""
    beta: Share = 0.5
    """β, the teacher's share of the mixture; 0 is ``forward-kl``, 1 is ``reverse-kl``."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    label_weight: Weight = 0.0
    """Of the cross-entropy with the data's own tokens; 0 trains on the teacher's distributions alone."""


class SequenceLevel(TokenMethod):
    """The student learns whole texts that the teacher wrote: each prompt's continuation, written once, before the training."""

    summary = "Language models: the student learns whole texts that the teacher wrote."
    formula = "L = weight · CE(teacher's text) + label_weight · CE(data)"
    paper = "Kim, Rush: Sequence-Level Knowledge Distillation, 2016, arXiv:1606.07947"

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


class OnPolicy(TokenMethod):
    """The student learns from the teacher on texts that it writes itself, where its own mistakes lead."""

    summary = "Language models: the teacher's distributions on texts that the student writes itself, mixed with the data's."
    formula = "L = weight · JSD_β(p_t, p_s) on the student's own texts in a share λ of the steps, on the data's in the others"
    paper = "Agarwal et al.: On-Policy Distillation of Language Models, 2024, arXiv:2306.13649"

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


class UniversalLogit(TokenMethod):
    """For networks with different tokenizers: probabilities are compared by rank, the largest with the largest."""

    summary = "Language models with different tokenizers: probabilities are compared by rank."
    formula = "L = label_weight · CE + weight · mean over tokens of Σ_i |p_s(i) − p_t(i)|, both in falling order"
    paper = "Boizard, El Haddad, Hudelot, Colombo: Universal Logit Distillation, 2024, arXiv:2402.12030"

    name: Literal["uld"]
    """Which method this is."""
    temperature: Temperature = 1.0
    """τ, by which both networks' logits are divided."""
    weight: Weight = 1.5
    """Of the method's own loss."""
