"""What a spec requires of its report: gates on its figures, each a comparison with a number. Pure, no torch.

Invariant: a figure that has an interval for its whole claim, as the gain, is held by the interval's worse end; one that was not
measured holds no gate.
"""

import math
import re
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.spec.strict import StrictModel

RequiredFigure = Literal["score", "relative_to_teacher", "gain", "agreement", "latency_ms", "parameters", "bytes"]
_GATE = re.compile(r"(<=|>=|<|>)?\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")


def _gate(better: Literal["larger", "smaller"]) -> BeforeValidator:
    """Reads ``0.97``, ``">0.97"`` or ``">= 0.97"`` into one form; a number alone is the least, or the most, that is accepted."""
    ours, alone = (("<", "<="), "<=") if better == "smaller" else ((">", ">="), ">=")

    def read(value: object) -> str:
        found = None if isinstance(value, bool) else _GATE.fullmatch(str(value).strip())
        if not isinstance(value, int | float | str) or found is None or not math.isfinite(float(found[2])):
            raise PydanticCustomError("gate", f"write a number, such as 0.97, or a comparison with one, such as '{ours[0]}0.97'")
        if found[1] is not None and found[1] not in ours:
            raise PydanticCustomError(
                "gate", f"this figure is the better the {better} it is: write a number alone, or one behind {' or '.join(ours)}"
            )
        return f"{found[1] or alone}{float(found[2]):.12g}"

    return BeforeValidator(read)


_SCHEMA = WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})
AtLeast = Annotated[str, _gate("larger"), _SCHEMA]
"""``0.97`` and ``">=0.97"`` are the same; ``">0.97"``."""
AtMost = Annotated[str, _gate("smaller"), _SCHEMA]
"""``5`` and ``"<=5"`` are the same; ``"<5"``."""


class RequireSpec(StrictModel):
    """What the student must have to be accepted; the job succeeds either way, and says which gate was missed."""

    score: AtLeast | None = None
    """Its test score: accuracy, F1, R² or what its task has; over several seeds their mean."""
    relative_to_teacher: AtLeast | None = None
    """Its test score as a share of the teacher's."""
    gain: AtLeast | None = None
    """What it scores over the control: the lower end of the 95% interval. Needs ``evaluation.control``."""
    agreement: AtLeast | None = None
    """Share of the test split on which it predicts what the teacher does; of numbers their correlation."""
    latency_ms: AtMost | None = None
    """Median milliseconds of a forward pass of one sample, on the job's device."""
    parameters: AtMost | None = None
    """Number of its parameters."""
    bytes: AtMost | None = None
    """Size of its ``model.safetensors``."""

    @property
    def gates(self) -> dict[RequiredFigure, str]:
        """What is required, by figure."""
        asked = ((figure, getattr(self, figure)) for figure in get_args(RequiredFigure))
        return {figure: gate for figure, gate in asked if gate is not None}


def holds(gate: str, value: float) -> bool:
    """Whether a value is accepted by a gate in the form in which a spec is stored, such as ``>=0.97``."""
    found = _GATE.fullmatch(gate)
    if found is None:
        raise ValueError(f"{gate!r} is no gate")
    bound = float(found[2])
    return {"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}[found[1]]
