"""The result of a finished training: its best and last weights, and its figures."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from worker.evaluation.evaluate import EvaluationResult
from worker.training.kept_weights import Weights

ChosenBy = Literal["score", "agreement"]
"""The score against the labels, or, without any, the agreement with the teacher."""


@dataclass(frozen=True)
class TrainingFigures:
    """The figures of one finished training."""

    steps: int
    epochs: int
    """Epochs started; ``max_steps`` may cut the last one short."""
    stopped_early: bool
    best_step: int
    best_validation: EvaluationResult
    last_validation: EvaluationResult
    train_loss: float
    """Mean over the last window of steps."""
    seconds: float
    """Over all attempts, without work that a crash undid."""
    samples_seen: int
    chosen_by: ChosenBy = "score"
    """What the best weights were chosen by on the validation split, whose evaluations are these."""
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    """[step, value] of its losses and of its evaluations on the validation split, by name."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: the weights of the best evaluation on the validation split, and the last ones."""

    best: Weights
    last: Weights | None
    """Stored for the student alone, since a cancel request may ask for them; None for other networks."""
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
