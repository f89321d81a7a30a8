"""Warnings of a dry run: its body is the spec alone, so that it can be posted, and they are in a header."""

import json
from collections.abc import Sequence

from service.spec.warning_message import WarningMessage

WARNINGS_HEADER = "Stillhouse-Warnings"
_MOST_BYTES = 4000
"""Proxies refuse responses with much longer headers."""


def warnings_header(warnings: Sequence[WarningMessage]) -> str:
    """The warnings as a JSON list in ASCII: those that have room, and how many more there are."""
    shown: list[dict[str, str]] = []
    for number, warning in enumerate(warnings):
        following = [*shown, warning.model_dump()]
        if len(json.dumps(following)) > _MOST_BYTES:
            more = f"and {len(warnings) - number} more: submit the job to see all"
            return json.dumps([*shown, {"code": "more", "message": more}])
        shown = following
    return json.dumps(shown)
