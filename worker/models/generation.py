"""Generation of texts by a causal language model, for methods that train on them. B batch, P tokens of a prompt, L of a row.

Invariant: sampling uses torch's global generator, whose state is in checkpoints, and a model's own generation config has no
effect: the same weights, prompts and generator state give the same texts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from worker.data.text.language import Framing, TokenRows, continued
from worker.eval_mode import in_eval_mode


@dataclass(frozen=True)
class Decoding:
    """Decoding strategy: sampling at a temperature, or beam search if ``temperature`` is None."""

    max_new_tokens: int
    temperature: float | None
    num_beams: int = 1


def write(model: Any, prompts: Tensor, real: Tensor, framing: Framing, decoding: Decoding) -> TokenRows:
    """Generates a continuation of each prompt up to its end token: rows (B, L) of both, with the loss on the continuation.

    ``model`` is one of ``transformers``. Prompts (B, P) are padded at their beginning; ``real`` (B, P) is their attention mask.
    Runs without dropout and without gradients.
    """
    sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=framing.end,
        pad_token_id=framing.pad,
        **({"do_sample": False, "num_beams": decoding.num_beams} if decoding.temperature is None else sampling),
    )
    with in_eval_mode(model), _settings(model, config):
        whole = model.generate(prompts, attention_mask=real.long())
    return continued(prompts, real, whole[:, prompts.shape[1] :], framing)


@contextmanager
def _settings(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Replaces the model's generation config, whose settings (a repetition penalty, say) would complete ``config``."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
