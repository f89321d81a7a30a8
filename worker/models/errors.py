"""Errors of a network before training. Each message says what to change."""


class UnfitArchitecture(Exception):
    """The architecture cannot be built for these inputs and outputs."""


class UnreadableNetwork(Exception):
    """A network's folder cannot be loaded; the message names the file."""
