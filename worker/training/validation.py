"""The evaluation of a training on the validation split, by which its best weights are chosen and it is stopped early.

N samples, W outputs.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from worker.data.samples import Samples
from worker.distributed.ranks import ProcessGroup
from worker.evaluation.evaluate import EvaluationResult
from worker.evaluation.precision import Precision
from worker.training.result import ChosenBy


class Predict(Protocol):
    """Computes a network's outputs for all samples, in their order; each rank computes some, and all ranks get all."""

    def __call__(self, network: nn.Module, samples: Samples, *, precision: Precision, group: ProcessGroup) -> Tensor: ...


@dataclass(frozen=True)
class ValidationTeacher:
    """A teacher that chooses the best weights by the agreement with it, as the validation split has no labels."""

    outputs: Tensor
    """(N, W), on the validation split."""
    teaches: tuple[str, ...] | None
    """The targets that it teaches; None for all."""


@dataclass(frozen=True)
class Validation:
    """The validation split behind a network's preprocessing, and what its outputs are scored by."""

    samples: Samples
    predict: Predict
    score: Callable[[Tensor], EvaluationResult]
    """From the outputs on the split."""
    score_name: Literal["accuracy", "score", "agreement"]
    """In the metric's name; agreement if there are no labels, and the score is that with the teacher."""
    is_chosen_by_loss: bool = False
    """Whether the best weights are those of the least loss, where early stopping does not say."""

    @property
    def chosen_by(self) -> ChosenBy:
        """What the best weights are chosen by."""
        return "agreement" if self.score_name == "agreement" else "score"

    def evaluate(self, network: nn.Module, *, precision: Precision, group: ProcessGroup) -> EvaluationResult:
        """Score and loss of the network, the same on all ranks."""
        outputs = self.predict(network, self.samples, precision=precision, group=group)
        return EvaluationResult(**group.broadcast_from_rank0(asdict(self.score(outputs))))
