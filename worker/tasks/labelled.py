"""What the tasks with targets for each sample share: classes and numbers, any number of them side by side."""

from worker.tasks.task import Task


class LabelledTask(Task):
    """A task whose networks map one sample to one row of outputs (W,)."""
