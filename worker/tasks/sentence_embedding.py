"""Embeddings of texts, learnt from a teacher's."""

from worker.tasks.task import Task


class SentenceEmbedding(Task):
    """Text encoders, whose targets are their teacher's embeddings."""
