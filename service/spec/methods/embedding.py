"""The method that compares the networks' embeddings of whole texts."""

from typing import Literal

from service.spec.methods.terms import Weight
from service.spec.strict import StrictModel


class EmbeddingDistillation(StrictModel):
    """The student's embedding of a text is to be the teacher's, through a learned linear map where their widths differ."""

    name: Literal["embedding"]
    """Which method this is."""
    weight: Weight = 1.0
    """Of the loss."""
    loss: Literal["mse", "cosine"] = "mse"
    """``mse``: the mean squared error. ``cosine``: 1 less the cosine, which leaves lengths free."""
