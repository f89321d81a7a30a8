"""What can go wrong with a dataset before it is trained on."""


class UnusableData(Exception):
    """The dataset cannot be trained on; the message says where it breaks and what to change."""
