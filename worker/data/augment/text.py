"""Operations on texts as token ids (B, L) int64, padded at the end. B batch, L tokens."""

import torch
from torch import Tensor

from service.spec.augment import TokenDropout
from worker.data.augment.operation import Draw, Stored, Vocabulary
from worker.data.text.tokenization import split_types, with_types


def token_dropout(spec: TokenDropout, tokens: Tensor, draw: Draw, stored: Stored) -> Tensor:
    """Masks or deletes each token that is not special with a probability; the token with the greatest draw always stays."""
    vocabulary = stored.vocabulary
    if vocabulary is None:
        raise RuntimeError("texts come with their vocabulary")
    droppable = _droppable(tokens, vocabulary)
    draws = draw(tokens.shape[1]).masked_fill(~droppable, -1)
    dropped = droppable & (draws < spec.probability)
    dropped &= draws < draws.amax(dim=1, keepdim=True)
    if spec.mode == "mask":
        _, types = split_types(tokens)
        return with_types(torch.full_like(tokens, vocabulary.mask), types).where(dropped, tokens)
    # A stable sort by whether a token was deleted moves the remaining tokens, in order, before the padding.
    order = dropped.to(torch.int8).argsort(dim=1, stable=True)
    return tokens.masked_fill(dropped, vocabulary.pad).gather(1, order)


def _droppable(tokens: Tensor, vocabulary: Vocabulary) -> Tensor:
    droppable = tokens != vocabulary.pad
    ids, _ = split_types(tokens)
    for special in vocabulary.special:
        droppable &= ids != special
    return droppable
