"""What the parameters of all methods have in common."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from service.spec.strict import StrictModel

Weight = Annotated[float, Field(ge=0, le=1e9)]
Temperature = Annotated[float, Field(gt=0, le=1000)]
LayerPath = Annotated[str, Field(min_length=1, max_length=300)]


class Weighted(StrictModel):
    """A method's own loss beside the label's: ``weight · loss + label_weight · CE``."""

    weight: Weight = 1.0
    """Of the method's own loss."""
    label_weight: Weight = 1.0
    """Of the cross-entropy with the labels; 0 trains without labels. In ``terms`` it is 0 unless it is given."""


class Layers(StrictModel):
    """Which layers are compared, by module path: the student's first with the teacher's first, and so on."""

    student: Annotated[list[LayerPath], Field(min_length=1, max_length=64)]
    """Module paths of the student, such as ``layer2``."""
    teacher: Annotated[list[LayerPath], Field(min_length=1, max_length=64)]
    """Module paths of the teacher."""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.student) != len(self.teacher):
            raise ValueError(
                f"name as many layers of each: {len(self.student)} of the student, {len(self.teacher)} of the teacher"
            )
        return self


class BetweenLayers(Weighted):
    """A method that compares inner layers."""

    compares: ClassVar[Literal["stages", "middle", "embedding"]] = "stages"
    """Which of a network's own layers it takes by default: every stage, the middle one, or what its last layer reads."""

    layers: Layers | None = None
    """By default those that the networks themselves offer; a path that is not there is refused with those that are."""
