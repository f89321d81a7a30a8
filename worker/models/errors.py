"""What can go wrong with a network before it is trained. Each message says what to change."""


class UnfitArchitecture(Exception):
    """The architecture cannot be built for these images and classes."""


class UnreadableNetwork(Exception):
    """A network's folder cannot be loaded; the message names the file."""
