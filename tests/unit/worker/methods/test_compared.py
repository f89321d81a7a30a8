"""What a method compares of token features: the tokens of a text, and nothing of its padding."""

import torch

from worker.methods import DistillationBatch, LayerPairs, Outputs
from worker.methods.compared import features, pooled, pooled_features, token_features

PAIRS = LayerPairs(("ours",), ("theirs",))
TOKENS = torch.arange(12.0).view(2, 3, 2)
"""Two texts, of three tokens and of one."""
COUNTED = torch.tensor([[True, True, True], [True, False, False]])


def step(ours: Outputs, theirs: Outputs) -> DistillationBatch:
    return DistillationBatch(ours, theirs, labels=torch.zeros(2), indices=torch.arange(2))


def of(name: str, feature: torch.Tensor, counted: torch.Tensor | None) -> Outputs:
    return Outputs(torch.zeros(2, 3), {name: feature}, counted)


def test_the_mean_is_over_the_tokens_that_count() -> None:
    vectors = pooled(of("ours", TOKENS, COUNTED), "ours")
    assert vectors.tolist() == [[2.0, 3.0], [6.0, 7.0]]


def test_without_padding_the_mean_is_over_all_tokens() -> None:
    assert torch.equal(pooled(of("ours", TOKENS, None), "ours"), TOKENS.mean(dim=1))


def test_a_vector_for_each_text_is_left_as_it_is() -> None:
    vectors = torch.rand(2, 5)
    assert torch.equal(pooled(of("ours", vectors, COUNTED), "ours"), vectors)


def test_networks_with_tokens_of_their_own_are_compared_by_their_means() -> None:
    longer = torch.rand(2, 5, 4)
    ((ours, theirs),) = pooled_features(step(of("ours", TOKENS, COUNTED), of("theirs", longer, None)), PAIRS)
    assert (ours.shape, theirs.shape) == ((2, 2), (2, 4))


def test_token_by_token_more_padding_on_one_side_changes_nothing() -> None:
    padded = torch.nn.functional.pad(TOKENS, (0, 0, 0, 2), value=7.0)
    counted = torch.nn.functional.pad(COUNTED, (0, 2))
    ((ours, theirs),) = token_features(step(of("ours", TOKENS, COUNTED), of("theirs", padded, counted)), PAIRS)
    assert torch.equal(ours, theirs)
    assert ours.shape == (4, 2)


def test_where_whole_texts_are_compared_padding_is_zero() -> None:
    ((ours, _),) = features(step(of("ours", TOKENS, COUNTED), of("theirs", TOKENS, None)), PAIRS)
    assert torch.equal(ours[1, 1:], torch.zeros(2, 2))
    assert torch.equal(ours[0], TOKENS[0])
