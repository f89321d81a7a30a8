"""Spec of the method that compares the networks' embeddings of whole texts."""

from typing import Literal

from service.spec.methods.terms import Method, Weight


class EmbeddingDistillation(Method):
    """Matches the student's embedding of a text with the teacher's, behind a learned linear map where their widths differ."""

    summary = "Sentence embeddings: a smaller encoder's vector for a text is to be the teacher's; widths may differ."
    formula = "L = weight · MSE(P e_s, e_t), or weight · (1 − cos(P e_s, e_t)); P is learned where widths differ"
    paper = "Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual, 2020, arXiv:2004.09813"
    kind = "embeddings"
    made_for = "sentence-embedding"
    stands_alone = True

    name: Literal["embedding"]
    """The method's name."""
    weight: Weight = 1.0
    """Weight of the loss."""
    loss: Literal["mse", "cosine"] = "mse"
    """``mse``: the mean squared error. ``cosine``: 1 − the cosine, which leaves lengths free."""
