"""DistilBERT's loss for a task: Sanh, Debut, Chaumond, Wolf, 2019, arXiv:1910.01108."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import DistilBert
from worker.methods.batch import DistillationBatch
from worker.methods.compared import hidden_states, pooled_width
from worker.methods.context import LossContext
from worker.methods.layer_pairs import UnfitLayers
from worker.methods.response import kl_divergence


class DistilBertLoss(nn.Module):
    """``kl_weight · τ² · KL(p_t ‖ p_s) + cosine_weight · Σ_layers (1 − cos(h_s, h_t))``, hidden states of one width compared."""

    def __init__(self, spec: DistilBert, context: LossContext) -> None:
        super().__init__()
        context.require_same_tokens(spec.name)
        self._spec, self._pairs = spec, context.pairs
        self.projections = nn.ModuleList()
        for ours, theirs in context.shape_pairs():
            are_tokens = len(ours) == 2, len(theirs) == 2
            if any(are_tokens) and ours[:-1] != theirs[:-1]:
                raise UnfitLayers(
                    f"layers of shape {tuple(ours)} and {tuple(theirs)} have no token of the one for each of the other: "
                    "name others in layers"
                )
            widths = pooled_width(ours), pooled_width(theirs)
            self.projections.append(nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths))

    def forward(self, batch: DistillationBatch) -> Tensor:
        spec = self._spec
        cosines = [
            functional.cosine_similarity(projection(ours), theirs, dim=-1).mean()
            for projection, (ours, theirs) in zip(self.projections, hidden_states(batch, self._pairs), strict=True)
        ]
        kl = kl_divergence(batch.student.logits, batch.teacher_outputs.logits, temperature=spec.temperature)
        return spec.kl_weight * kl + spec.cosine_weight * (1 - torch.stack(cosines)).sum()
