"""The distillation network: a student that reads its teacher's outputs beside its own features. B batch, W outputs.

The body's output layer has two heads of W columns: the base, which reads the features alone, and the teacher head, which predicts
the teacher's outputs, T̂(x). The classifier is linear in features and teacher outputs, so with the teacher head in the teacher's
place all three fold into one head: the exported student is a plain network, as large and as fast as one without a teacher.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.models.fold import fold_head
from worker.targets import Targets

_BODY = "body."


class PrivilegedNetwork(nn.Module):
    """``S(x, t) = base(x) + R · centred(t)``, where t are the teacher's outputs, or the teacher head's prediction of them."""

    def __init__(self, body: nn.Module, targets: Targets, *, extra_input: bool) -> None:
        """Wraps a ``body`` with 2·W outputs."""
        super().__init__()
        self.body, self._width, self._extra_input = body, targets.width, extra_input
        self.teacher_head = nn.Identity()
        self.reader = nn.Linear(targets.width, targets.width, bias=False)
        nn.init.zeros_(self.reader.weight)  # so that training begins with the base alone
        self.register_buffer("centring", _centring(targets), persistent=False)

    centring: Tensor

    def forward(self, inputs: Tensor, teacher_outputs: Tensor | None = None, alone: Tensor | None = None) -> Tensor:
        """Computes outputs (B, W). Samples with ``alone`` (B,) read the teacher head instead of ``teacher_outputs`` (B, W)."""
        base, teacher_head = torch.split(self.body(inputs), self._width, dim=-1)
        teacher_head = self.teacher_head(teacher_head)
        if not self._extra_input:
            return base
        read = teacher_head
        if teacher_outputs is not None:
            teacher_outputs = teacher_outputs.to(teacher_head.dtype)
            # NaN marks a target that the teacher does not predict; the teacher head stands in for it.
            predicted = teacher_outputs.isnan() if alone is None else teacher_outputs.isnan() | alone.unsqueeze(1)
            read = torch.where(predicted, teacher_head, teacher_outputs)
        return base + functional.linear(read, self._reading())

    @property
    def pad(self) -> int | None:
        """The id by which the body looks for padding; None for a body that reads no tokens."""
        return getattr(self.body, "pad", None)

    @property
    def stage_layers(self) -> tuple[str, ...]:
        """Stage layers of the body."""
        layers: tuple[str, ...] = getattr(self.body, "stage_layers", ())
        return layers

    @property
    def embedding_layers(self) -> tuple[str, ...]:
        """Embedding layers of the body."""
        layers: tuple[str, ...] = getattr(self.body, "embedding_layers", ())
        return layers

    @property
    def reads_teacher(self) -> bool:
        """Whether the outputs depend on the teacher's outputs."""
        return self._extra_input

    def _reading(self) -> Tensor:
        return self.reader.weight @ self.centring


def fold_weights(
    weights: Mapping[str, Tensor], template: Mapping[str, Tensor], targets: Targets, *, extra_input: bool
) -> dict[str, Tensor]:
    """Computes the weights of a plain network with W outputs that equals a distillation network without teacher outputs.

    ``weights`` are the distillation network's state_dict, ``template`` is the plain one's, for its shapes.
    """
    body = {name.removeprefix(_BODY): tensor for name, tensor in weights.items() if name.startswith(_BODY)}
    reader = weights["reader.weight"]
    reading = reader @ _centring(targets).to(reader) if extra_input else torch.zeros_like(reader)
    return fold_head(body, template, reader=reading)


def _centring(targets: Targets) -> Tensor:
    """(W, W) matrix that centres a target's logits over its classes, for they are equal up to a constant; numbers, and classes by
    themselves, stay."""
    centring = torch.eye(targets.width)
    for target, block in zip(targets, targets.split(centring), strict=True):
        if target.classes is not None and not target.is_multi_label:
            block -= block.mean(dim=1, keepdim=True)
    return centring
