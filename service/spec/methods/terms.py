"""Base classes of the methods' specs: what a loss requires, a method's page in the catalogue, weights and layers.

Class variables hold what belongs to a method and not to a job; they are no part of a stored spec or of its schema.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from service.spec.strict import StrictModel
from service.spec.tasks import MethodKind

Weight = Annotated[float, Field(ge=0, le=1e9)]
Temperature = Annotated[float, Field(gt=0, le=1000)]
LayerPath = Annotated[str, Field(min_length=1, max_length=300)]


class LossTerm(StrictModel):
    """A loss that a spec names, by itself or as a term of a sum, and what it requires of the data and of the batches."""

    compares_samples: ClassVar[bool] = False
    """Whether it compares the samples of a batch with each other, and so needs two."""
    needs_classes: ClassVar[bool] = False
    """Whether it is made for one target of classes."""
    reads_one_class: ClassVar[bool] = False
    """Whether it reads the one class of each sample, which a mixture of two samples does not have."""
    weighs_rows: ClassVar[bool] = False
    """Whether its loss is a mean over rows, in which each may have a weight."""
    compares_tokens: ClassVar[bool] = False
    """Whether it compares the outputs of two networks for one token, where the layers have something for each token."""


class Labels(LossTerm):
    """The task's own loss, the cross-entropy with the labels: a term of a sum."""

    weighs_rows = True

    name: Literal["labels"]
    """The term's name."""
    weight: Weight = 1.0
    """Weight of the term in the sum."""


class Method(LossTerm):
    """A distillation method: its parameters are the fields, its page in the catalogue the class variables."""

    summary: ClassVar[str]
    formula: ClassVar[str]
    """Its loss; z_t and z_s are the teacher's and the student's logits, y the label."""
    paper: ClassVar[str]
    kind: ClassVar[MethodKind] = "outputs"
    """What it reads of the networks, by which a task says whether it fits."""
    made_for: ClassVar[str] = ""
    """Of a method that reads what one task alone has: for whom it is, in a message."""
    stands_alone: ClassVar[bool] = False
    """Whether it is no term of a sum: it determines who teaches whom, or how long, or has no labels beside it."""


class Weighted(Method):
    """A method whose loss is its own beside the labels': ``weight · loss + label_weight · CE``."""

    weight: Weight = 1.0
    """Weight of the method's own loss."""
    label_weight: Weight = 1.0
    """Weight of the cross-entropy with the labels; 0 trains without labels. In ``terms`` it is 0 unless it is given."""


class Layers(StrictModel):
    """The layers that are compared, by module path: the student's first with the teacher's first, and so on."""

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

    kind = "layers"
    compares: ClassVar[Literal["stages", "middle", "embedding"]] = "stages"
    """The layers that it compares by default: every stage of a network, the middle one, or the input of its last layer."""

    layers: Layers | None = None
    """The layers to compare; by default those that the networks offer. An unknown path is refused with the known ones."""
