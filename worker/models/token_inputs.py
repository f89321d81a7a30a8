"""What a text network of ``transformers`` is called with, from rows of token ids. B batch, L tokens.

Invariant: places after a text's end are masked, whatever id stands there; the id of padding inside a text is a token like any
other.
"""

from typing import Any

from torch import Tensor

from worker.data.tokenization import NO_TOKEN


def token_inputs(model: Any, ids: Tensor, *, pad: int, has_token_types: bool = False) -> dict[str, Tensor]:
    """Splits rows (B, L), filled up with ``NO_TOKEN``, into ids and attention mask.

    Args:
        model: the network, one of the library's.
        ids: the rows.
        pad: the id to stand after a text's end: that by which the network itself looks for padding.
        has_token_types: whether the tokenizer gives token types, which are all 0 for a single text. GPT-2 adds an embedding for
            them, so that it matters.
    """
    mask = ids != NO_TOKEN
    named = {"input_ids": ids.where(mask, pad), "attention_mask": mask.long()}
    if has_token_types:
        named["token_type_ids"] = ids.new_zeros(ids.shape)
    if model.config.model_type == "mobilebert":
        # It reads the embedding of the next place beside each token's own: after the end of a text, zeros.
        embedded = model.get_input_embeddings()(named.pop("input_ids"))
        named["inputs_embeds"] = embedded * mask.unsqueeze(-1)
    return named
