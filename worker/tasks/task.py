"""The interface of a task: what its samples, networks, losses and figures are. N samples, B batch, W outputs.

An implementation has no state.
"""


class Task:
    """What the networks of one task read, learn and are measured by."""
