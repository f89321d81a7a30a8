"""What a text network of ``transformers`` is called with, from rows of token ids. B batch, L tokens.

Invariant: places after a text's end are masked, whatever id stands there; the id of padding inside a text is a token like any
other.
"""

from typing import Any

from torch import Tensor

from worker.data.text.tokenization import NO_TOKEN, split_types


def token_inputs(model: Any, tokens: Tensor, *, pad: int, has_token_types: bool = False) -> dict[str, Tensor]:
    """Splits rows (B, L), filled up with ``NO_TOKEN``, into ids, attention mask and token types.

    Args:
        model: the network, one of the library's.
        tokens: the rows, see :func:`worker.data.text.tokenization.with_types`.
        pad: the id to stand after a text's end: that by which the network itself looks for padding.
        has_token_types: whether the network reads the types, which are all 0 for a single text. GPT-2 adds an embedding for
            them, so that it matters also there.
    """
    ids, types = split_types(tokens)
    mask = ids != NO_TOKEN
    named = {"input_ids": ids.where(mask, pad), "attention_mask": mask.long()}
    if has_token_types:
        named["token_type_ids"] = types
    if model.config.model_type == "mobilebert":
        # It reads the embedding of the next place beside each token's own: after the end of a text, zeros.
        embedded = model.get_input_embeddings()(named.pop("input_ids"))
        named["inputs_embeds"] = embedded * mask.unsqueeze(-1)
    return named
