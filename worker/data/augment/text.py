"""Operations on texts as token ids (B, L) int64, padded at the end. B batch, L tokens."""

import torch
from torch import Tensor

from service.spec.augment import TokenDropout
from worker.data.augment.operation import Draw, Stored, Vocabulary


def token_dropout(spec: TokenDropout, tokens: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Each token but the special ones hidden or left out, by chance; the one with the greatest number always stays."""
    vocabulary = stored.vocabulary
    if vocabulary is None:
        raise RuntimeError("texts come with what their token ids mean")
    droppable = _droppable(tokens, vocabulary)
    draws = draw(tokens.shape[1]).masked_fill(~droppable, -1)
    dropped = droppable & (draws < spec.probability)
    dropped &= draws < draws.amax(dim=1, keepdim=True)
    if spec.mode == "mask":
        return tokens.masked_fill(dropped, vocabulary.mask)
    # What stays, in its order, then padding: a stable sort by whether a token was left out.
    order = dropped.to(torch.int8).argsort(dim=1, stable=True)
    return tokens.masked_fill(dropped, vocabulary.pad).gather(1, order)


def _droppable(tokens: Tensor, vocabulary: Vocabulary) -> Tensor:
    droppable = tokens != vocabulary.pad
    for special in vocabulary.special:
        droppable &= tokens != special
    return droppable
