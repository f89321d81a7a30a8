"""Why a network or data cannot be fetched: it is refused, which another attempt would find too, or the Hub is away.

Each message is in the project's own words and holds no header, so that no token is in it.
"""


class SourceRefused(Exception):
    """The network or the data cannot be had; ``hint`` says how to mend it, ``pointer`` where the spec names it."""

    code = "input_unavailable"
    """One of ``service.errors.FAILURE_CODES``."""

    def __init__(self, message: str, hint: str, *, pointer: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint, self.pointer = message, hint, pointer


class NotOnThisHost(SourceRefused):
    """The host is offline and does not have the network: another host may."""


class InvalidData(SourceRefused):
    """The data are there and cannot be read as the spec says."""

    code = "invalid_data"


class HubAway(ConnectionError):
    """The Hub, or a bucket, cannot be used now: a part that is away, by its kind, so that no attempt is charged for it."""

    def __init__(self, message: str, hint: str, *, part: str = "the Hub") -> None:
        super().__init__(message)
        self.message, self.hint, self.part = message, hint, part
