"""Metrics of next-token prediction. M tokens that count.

Outputs (M, 3) are those of :func:`worker.evaluation.tokens.predict_tokens`: loss, predicted token and true token of each.
"""

import math

import torch
from torch import Tensor

PREDICTED = "next token"
"""The name of the one target in metrics by target."""


def token_score(outputs: Tensor) -> Tensor:
    """Token accuracy and mean loss of outputs (M, 3): (2,)."""
    loss, predicted, true = outputs.unbind(dim=1)
    return torch.stack([(predicted == true).double().mean(), loss.mean()])


def token_agreement(first: Tensor, second: Tensor) -> float | None:
    """The fraction of tokens for which two networks' outputs (M, 3) predict the same token; None if the tokenizers differ."""
    if first.shape != second.shape or not torch.equal(first[:, 2], second[:, 2]):
        return None
    return float((first[:, 1] == second[:, 1]).double().mean())


def token_metrics(outputs: Tensor) -> dict[str, float]:
    """Metrics of outputs (M, 3). Perplexity is per token, so it does not compare networks with different tokenizers."""
    accuracy, loss = token_score(outputs).tolist()
    return {"token_accuracy": accuracy, "loss": loss, "perplexity": math.exp(min(loss, 700.0))}
