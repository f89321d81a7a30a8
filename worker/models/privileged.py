"""The distillation network: a student that reads its teacher's output beside its own features. B batch, W outputs.

The body's output layer has two heads of W columns: what the features say by themselves, and the teacher head, which predicts the
teacher's outputs, T̂(x). The classifier is linear in features and teacher's outputs alike, so once the teacher head stands for the
teacher the three fold into one head: the student that is exported is a plain network, as large and as fast as one without a
teacher.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.models.fold import fold_head
from worker.targets import Targets


class PrivilegedNetwork(nn.Module):
    """``S(x, t) = base(x) + R · centred(t)``, t the teacher's outputs or, where there are none, the teacher head's prediction."""

    def __init__(self, body: nn.Module, targets: Targets, *, extra_input: bool) -> None:
        """``body`` has 2·W outputs."""
        super().__init__()
        self.body, self._width, self._extra_input = body, targets.width, extra_input
        self.teacher_head = nn.Identity()
        self.reader = nn.Linear(targets.width, targets.width, bias=False)
        nn.init.zeros_(self.reader.weight)  # at first it says what its own features say
        self.register_buffer("centring", _centring(targets), persistent=False)

    centring: Tensor

    def forward(self, inputs: Tensor, teacher_outputs: Tensor | None = None, alone: Tensor | None = None) -> Tensor:
        """Outputs (B, W). Samples that are ``alone`` (B,) read the teacher head's instead of ``teacher_outputs`` (B, W)."""
        base, teacher_head = torch.split(self.body(inputs), self._width, dim=-1)
        teacher_head = self.teacher_head(teacher_head)
        if not self._extra_input:
            return base
        read = teacher_head
        if teacher_outputs is not None:
            teacher_outputs = teacher_outputs.to(teacher_head.dtype)
            # A target that the teacher does not predict is read from the teacher head.
            own = teacher_outputs.isnan() if alone is None else teacher_outputs.isnan() | alone.unsqueeze(1)
            read = torch.where(own, teacher_head, teacher_outputs)
        return base + functional.linear(read, self._reading())

    @property
    def pad(self) -> int | None:
        """The token id that takes no part; None for a body that reads no tokens."""
        return getattr(self.body, "pad", None)

    @property
    def stage_layers(self) -> tuple[str, ...]:
        """The body's."""
        layers: tuple[str, ...] = getattr(self.body, "stage_layers", ())
        return layers

    @property
    def embedding_layers(self) -> tuple[str, ...]:
        """The body's."""
        layers: tuple[str, ...] = getattr(self.body, "embedding_layers", ())
        return layers

    @property
    def reads_teacher(self) -> bool:
        """Whether the teacher's outputs make a difference."""
        return self._extra_input

    def folded(self, template: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a plain network, built with W outputs, that gives what this one gives when it stands alone.

        ``template`` is such a network's state, for its shapes.
        """
        reading = self._reading() if self._extra_input else torch.zeros_like(self.reader.weight)
        return fold_head(self.body.state_dict(), template, reader=reading.detach())

    def _reading(self) -> Tensor:
        return self.reader.weight @ self.centring


def _centring(targets: Targets) -> Tensor:
    """(W, W): takes the mean over a target's classes off, as logits mean the same up to a constant. A number stays as it is."""
    centring = torch.eye(targets.width)
    for target, block in zip(targets, targets.split(centring), strict=True):
        if target.classes is not None:
            block -= block.mean(dim=1, keepdim=True)
    return centring
