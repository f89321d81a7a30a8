"""Content negotiation by the ``Accept`` header (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
_Ranges = list[tuple[str, float]]
"""Media ranges with their quality values, 0 to 1."""


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """The media type of ``offered`` with the highest quality; the first one if there is no header or none is accepted.

    Of two with the same quality the one that the header names more specifically wins: ``text/html, */*`` selects HTML.
    """
    ranges = _ranges(accept or "*/*")
    best = max(offered, key=lambda media_type: _preference(media_type, ranges))
    quality, _ = _preference(best, ranges)
    return best if quality > 0 else offered[0]


def _ranges(accept: str) -> _Ranges:
    """Parses the header; malformed elements are skipped."""
    ranges = []
    for element in accept.lower().split(","):
        pattern, *parameters = element.split(";")
        named = dict(parameter.replace(" ", "").partition("=")[::2] for parameter in parameters)
        quality = named.get("q", "1")
        if _QUALITY.fullmatch(quality):
            ranges.append((pattern.strip(), float(quality)))
    return ranges


def _preference(media_type: str, ranges: _Ranges) -> tuple[float, int]:
    """(quality, specificity) of the most specific range that matches the media type."""
    specificity, quality = max(((_specificity(pattern, media_type), quality) for pattern, quality in ranges), default=(0, 0.0))
    return (quality, specificity) if specificity else (0.0, 0)


def _specificity(pattern: str, media_type: str) -> int:
    """3 for the media type itself, 2 for ``type/*``, 1 for ``*/*``, 0 for no match."""
    kind = media_type.partition("/")[0]
    return {media_type: 3, f"{kind}/*": 2, "*/*": 1}.get(pattern, 0)
