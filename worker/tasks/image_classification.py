"""Classes and numbers of images."""

from worker.tasks.labelled import LabelledTask


class ImageClassification(LabelledTask):
    """Networks that map images to outputs of their targets."""
