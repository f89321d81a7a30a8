"""Conditional requests: ETags (RFC 9110), ``Prefer: wait`` (RFC 7240) and byte ranges."""

import re
from dataclasses import dataclass

from service.errors import InvalidRequest, PreconditionFailed, RangeNotSatisfiable

MAX_WAIT_SECONDS = 60
_ETAG = re.compile(r'(W/)?("[^"]*")')
_ONE_VERSION = re.compile(r'\s*(?:W/)?"(0|[1-9][0-9]{0,17})"\s*')
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def is_unchanged(etag: str, if_none_match: str | None) -> bool:
    """Whether ``If-None-Match`` names this version, so that the client already has it."""
    return if_none_match is not None and (_is_any(if_none_match) or etag in (tag for _, tag in _ETAG.findall(if_none_match)))


def known_version(if_none_match: str | None) -> int | None:
    """The one version that ``If-None-Match`` names; None if there is no header, or it names several, any or none."""
    found = _ONE_VERSION.fullmatch(if_none_match or "")
    return None if found is None else int(found[1])


def require_match(etag: str, if_match: str | None) -> None:
    """Raises PreconditionFailed if ``If-Match`` names only other versions; weak tags (``W/``) never match."""
    if if_match is not None and not _is_any(if_match) and ("", etag) not in _ETAG.findall(if_match):
        raise PreconditionFailed(f"this has changed: it is at version {etag} now; read it again, then repeat", param="If-Match")


def wait_seconds(prefer: str | None) -> int | None:
    """The seconds of ``Prefer: wait=N``, at most ``MAX_WAIT_SECONDS``; None if the header does not ask to wait."""
    found = _WAIT.search(prefer or "")
    return None if found is None else min(MAX_WAIT_SECONDS, int(found[1]))


@dataclass(frozen=True)
class ByteRange:
    """Bytes ``start`` (inclusive) to ``end`` (exclusive) of ``size`` bytes."""

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def header(self) -> str:
        """The value of ``Content-Range``."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def read_range(value: str | None, size: int) -> ByteRange | None:
    """The range of a ``Range`` header; None, which means all bytes, for no header, another unit or several ranges.

    Raises:
        RangeNotSatisfiable: the range begins after the last byte.
    """
    found = _RANGE.fullmatch((value or "").strip())
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found[1], found[2]
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if last == "" else min(size, int(last) + 1)
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiable(f"there are {size} bytes; the range {value!r} lies behind them", param="Range")
    return ByteRange(start=start, end=end, size=size)


def event_id(value: str | None) -> int:
    """Parses ``Last-Event-ID``; 0 if there is none. Raises InvalidRequest if it is not a number."""
    if not value:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise InvalidRequest(
            f"Last-Event-ID must be an id of this stream, which are numbers, not {value!r:.80}", param="Last-Event-ID"
        )
    return int(value)


def _is_any(header: str) -> bool:
    return header.strip() == "*"
