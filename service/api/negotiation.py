"""Content negotiation: which of several media types a client would rather have (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
_Ranges = list[tuple[str, float]]
"""Media ranges with their quality, 0 to 1."""


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """The best of ``offered`` by an ``Accept`` header; the first of them where the client does not care, or takes none.

    Of two that are wanted alike it is the one that the header names more closely: ``text/html, */*`` asks for a page.
    """
    ranges = _ranges(accept or "*/*")
    best = max(offered, key=lambda media_type: _wish(media_type, ranges))
    quality, _ = _wish(best, ranges)
    return best if quality > 0 else offered[0]


def _ranges(accept: str) -> _Ranges:
    """What is malformed is left out."""
    ranges = []
    for element in accept.lower().split(","):
        pattern, *parameters = element.split(";")
        named = dict(parameter.replace(" ", "").partition("=")[::2] for parameter in parameters)
        quality = named.get("q", "1")
        if _QUALITY.fullmatch(quality):
            ranges.append((pattern.strip(), float(quality)))
    return ranges


def _wish(media_type: str, ranges: _Ranges) -> tuple[float, int]:
    """(quality, closeness) of the range that names the type most closely."""
    closeness, quality = max(((_closeness(pattern, media_type), quality) for pattern, quality in ranges), default=(0, 0.0))
    return (quality, closeness) if closeness else (0.0, 0)


def _closeness(pattern: str, media_type: str) -> int:
    """3 for the type itself, 2 for all of its kind, 1 for anything, 0 for another one."""
    kind = media_type.partition("/")[0]
    return {media_type: 3, f"{kind}/*": 2, "*/*": 1}.get(pattern, 0)
