"""Causal language models, which predict each next token of a text."""

from worker.tasks.task import Task


class CausalLM(Task):
    """Language models, whose targets are tokens."""
