"""What people call things: one line of text, as a terminal, a log and a page show it."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"
"""Without control characters, line breaks, and marks that turn the direction of what follows; joiners of letters may stand."""


def require_one_line(text: str) -> str:
    """Returns the text. Raises ValueError if it holds what no name may."""
    if not re.fullmatch(ONE_LINE, text):
        raise ValueError("a name has one line: leave out line breaks and other control characters")
    return text


OneLine = Annotated[str, AfterValidator(require_one_line), Field(json_schema_extra={"pattern": ONE_LINE})]
