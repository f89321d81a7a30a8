"""What a language model's loss and accuracy on few tokens show. M tokens that count, V vocabulary.

A constant guess knows how frequent each token of the training split is. Tokens of a text depend on each other: an interval's
spread is that of the means of consecutive tokens. Outputs (M, 3) are those of :func:`worker.evaluation.tokens.predict_tokens`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.spec.cards.evidence import TargetEvidence
from worker.evaluation.bootstrap import Groups, draws, intervals_of
from worker.evaluation.evidence import GuessComparison, Interval, finite_interval, mean_interval
from worker.evaluation.token_metrics import PREDICTED

_BLOCKS = 100
_FEWEST_BLOCKS = 5
"""Tokens of a block."""


@dataclass(frozen=True)
class TokenComparison(GuessComparison):
    """The negative loss of tokens beside that of their frequencies."""

    def __str__(self) -> str:
        return f"a loss of {-self.score:.3f} on {self.rows:,} tokens, where their frequencies alone have {-self.constant:.3f}"

    @property
    def near_chance(self) -> float:
        return self.constant


def compare_tokens_with_guess(outputs: Tensor, frequencies: Tensor) -> TokenComparison:
    """Compares a language model's outputs (M, 3) with the ``frequencies`` (V,) of the training split's tokens."""
    losses, true = outputs[:, 0].cpu().to(torch.float64), outputs[:, 2].cpu().to(torch.int64)
    constant = -frequencies.to(torch.float64).log()[true]
    low, high = mean_interval(_block_means(constant - losses))
    mean = constant.mean().item()
    return TokenComparison(PREDICTED, -losses.mean().item(), (low - mean, high - mean), -mean, len(losses))


def token_frequencies(ids: Tensor, vocabulary: int) -> Tensor:
    """Computes how frequent each token is among ``ids`` (M,), in (V,): each is counted once more, so that none is 0."""
    counts = torch.bincount(ids.cpu().flatten(), minlength=vocabulary).to(torch.float64) + 1
    return counts / counts.sum()


def paired_token_interval(first: Tensor, second: Tensor) -> Interval | None:
    """Computes the 95% interval of one language model's token accuracy less another's, both (M, 3) on the same texts.

    It is None if their tokens differ, or are too few.
    """
    if first.shape != second.shape or not torch.equal(first[:, 2], second[:, 2]):
        return None
    right = [(each[:, 1] == each[:, 2]).double().cpu() for each in (first, second)]
    return finite_interval(mean_interval(_block_means(right[0] - right[1])))


def token_evidence(outputs: Tensor) -> TargetEvidence:
    """Intervals of :func:`worker.evaluation.token_metrics.token_metrics` of outputs (M, 3), over blocks of consecutive tokens."""
    loss, predicted, true = outputs.cpu().to(torch.float64).unbind(dim=1)
    groups = Groups(len(outputs), blocks=_num_blocks(len(outputs)))
    sums = draws(groups.count) @ groups.sums(np.ones(len(outputs)), loss.numpy(), (predicted == true).numpy())
    count, losses, right = sums.T
    values = {"token_accuracy": right / count, "loss": losses / count, "perplexity": np.exp(np.minimum(losses / count, 700.0))}
    return TargetEvidence(intervals=intervals_of(values, groups))


def _num_blocks(num_tokens: int) -> int:
    return max(1, min(_BLOCKS, num_tokens // _FEWEST_BLOCKS))


def _block_means(values: Tensor) -> Tensor:
    """Means of consecutive values (M,), in as many blocks as leave some values to each."""
    blocks = _num_blocks(len(values))
    return torch.stack([block.mean() for block in values.tensor_split(blocks)]) if blocks > 1 else values[:1]
