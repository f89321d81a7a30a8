"""Figures on how well each next token is predicted. M tokens that count.

Outputs (M, 3) are those of :func:`worker.evaluation.tokens.predict_tokens`: loss, likeliest token and token of each.
"""

import math

import torch
from torch import Tensor

PREDICTED = "next token"
"""What figures by target call the one that is predicted."""


def token_score(outputs: Tensor) -> Tensor:
    """Token accuracy and mean loss of outputs (M, 3): (2,)."""
    loss, predicted, wanted = outputs.unbind(dim=1)
    return torch.stack([(predicted == wanted).double().mean(), loss.mean()])


def token_agreement(first: Tensor, second: Tensor) -> float | None:
    """Share of the tokens where two networks' outputs (M, 3) hold the same token the likeliest; None of different tokens."""
    if first.shape != second.shape or not torch.equal(first[:, 2], second[:, 2]):
        return None
    return float((first[:, 1] == second[:, 1]).double().mean())


def token_metrics(outputs: Tensor) -> dict[str, float]:
    """Figures of outputs (M, 3). The perplexity is one a token, so networks with different tokenizers do not compare by it."""
    accuracy, loss = token_score(outputs).tolist()
    return {"token_accuracy": accuracy, "loss": loss, "perplexity": math.exp(min(loss, 700.0))}
