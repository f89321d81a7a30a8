"""What a finished training leaves: its best and last weights, and its figures."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor, nn

from worker.evaluation.evaluate import EvaluationResult

Weights = dict[str, Tensor]
"""A network's state_dict, on the CPU."""


@dataclass(frozen=True)
class TrainingFigures:
    """What one finished training tells about itself."""

    steps: int
    epochs: int
    """Epochs begun; the last may be cut short by ``max_steps``."""
    stopped_early: bool
    best_step: int
    best_validation: EvaluationResult
    last_validation: EvaluationResult
    train_loss: float
    """Mean over the last window of steps."""
    seconds: float
    """Over all attempts; work that a crash undid does not count."""
    samples_seen: int


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: the weights of the best evaluation on the validation split, and the last ones."""

    best: Weights
    last: Weights | None
    """Kept for the student alone, whom a cancel may ask for."""
    figures: TrainingFigures

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": self.best, "last": self.last, "figures": asdict(self.figures)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        figures = dict(state["figures"])
        for name in ("best_validation", "last_validation"):
            figures[name] = EvaluationResult(**figures[name])
        return cls(best=state["best"], last=state["last"], figures=TrainingFigures(**figures))


def copy_weights(network: nn.Module) -> Weights:
    """The network's weights as they are now, on the CPU, in memory of their own."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
