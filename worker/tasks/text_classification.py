"""Classes and numbers of texts."""

from worker.tasks.labelled import LabelledTask


class TextClassification(LabelledTask):
    """Networks that map texts to outputs of their targets."""
