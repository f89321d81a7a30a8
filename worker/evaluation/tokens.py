"""Next-token predictions of a causal language model. N rows, M tokens that count, V vocabulary.

Logits of all tokens would not fit into memory. What is kept of a token is its loss, the predicted token and the true token,
(M, 3) in float64, which holds every id exactly: all of :mod:`worker.evaluation.token_metrics` is computed from these.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from worker.data.samples import Samples
from worker.data.tensors import row_width
from worker.data.text.language import ids_and_positions, predictions
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.eval_mode import in_eval_mode
from worker.evaluation.precision import Precision
from worker.methods.output_head import CHUNK_LOGITS, OutputHead, tokens_of_chunk
from worker.models.language_network import LanguageNetwork

BATCH_TOKENS = 2**15
"""The number of tokens in one forward pass."""


def predict_tokens(
    network: LanguageNetwork,
    samples: Samples,
    *,
    precision: Precision,
    after_batch: Callable[[int], None] | None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Tensor:
    """Computes (M, 3): loss, predicted token and true token of each token that counts, in the rows' order; in ``eval()``."""
    count = max(1, BATCH_TOKENS // max(1, row_width(samples.inputs) or 1))

    def outputs_from(start: int) -> Mapping[str, Tensor]:
        batch = samples.batch(torch.arange(start, min(start + count, len(samples))))
        (ids, positions), mask = ids_and_positions(batch.inputs), batch.labels
        with precision.forward_pass():
            hidden = network.hidden(ids, positions)
        return {"outputs": _token_outputs(*predictions(hidden, ids, mask), network.head)}

    pieces: list[Tensor] = []
    for piece in group.all_gather_batches(range(0, len(samples), count), outputs_from):
        pieces.append(piece["outputs"])
        if after_batch is not None:
            after_batch(min(len(pieces) * count, len(samples)))
    return torch.cat(pieces)


def first_logits(network: LanguageNetwork, samples: Samples) -> Tensor:
    """Computes the logits (M, V), in float32, of the first tokens that count, about :data:`CHUNK_LOGITS` values in all."""
    head, pieces, num_tokens = network.head, [], 0
    most = max(1, CHUNK_LOGITS // len(head.weight))
    with in_eval_mode(network):
        for row in range(len(samples)):
            batch = samples.batch(torch.tensor([row]))
            ids, positions = ids_and_positions(batch.inputs)
            hidden, _ = predictions(network.hidden(ids, positions), ids, batch.labels)
            pieces.append(head(hidden[: most - num_tokens]).to(torch.float32))
            num_tokens += len(pieces[-1])
            if num_tokens >= most:
                break
    return torch.cat(pieces)


def _token_outputs(hidden: Tensor, labels: Tensor, head: OutputHead) -> Tensor:
    count = tokens_of_chunk(head.weight.shape[0])
    pieces = [torch.empty(0, 3, dtype=torch.float64, device=hidden.device)]
    for start in range(0, len(hidden), count):
        logits, true = head(hidden[start : start + count]), labels[start : start + count]
        loss = functional.cross_entropy(logits, true, reduction="none")
        pieces.append(torch.stack([loss.double(), logits.argmax(dim=-1).double(), true.double()], dim=1))
    return torch.cat(pieces)
