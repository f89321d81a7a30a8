"""Classes and numbers of clips of sound."""

from worker.tasks.labelled import LabelledTask


class AudioClassification(LabelledTask):
    """Networks that map clips of sound to outputs of their targets."""
