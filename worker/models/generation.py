"""Texts that a causal language model writes itself, for methods that learn on them. B batch, P tokens of a prompt, L of a row.

Invariant: what is drawn comes from torch's global generator, whose state a checkpoint holds, and a model's own settings for
generation take no part: the same weights, prompts and generator give the same texts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from worker.data.language import Framing, TokenRows, continued
from worker.eval_mode import in_eval_mode


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen: drawn at a temperature, or without one the likeliest text that a beam search finds."""

    max_new_tokens: int
    temperature: float | None
    num_beams: int = 1


def write(model: Any, prompts: Tensor, real: Tensor, framing: Framing, decoding: Decoding) -> TokenRows:
    """Rows (B, L) of the prompts and what the model writes behind them, up to its end; the loss is on what it wrote.

    ``model`` is one of ``transformers``. Prompts (B, P) are padded at their beginning, ``real`` (B, P) says where they are not.
    Without dropout, and without a gradient.
    """
    drawn = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=framing.end,
        pad_token_id=framing.pad,
        **({"do_sample": False, "num_beams": decoding.num_beams} if decoding.temperature is None else drawn),
    )
    with in_eval_mode(model), _settings(model, config):
        whole = model.generate(prompts, attention_mask=real.long())
    return continued(prompts, real, whole[:, prompts.shape[1] :], framing)


@contextmanager
def _settings(model: Any, config: GenerationConfig) -> Iterator[None]:
    """What a model's own configuration sets, such as a penalty of repetition, would fill in what another leaves open."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
