"""Which of several media types a client would rather have."""

import pytest

from service.api.negotiation import preferred

JSON, PAGE = "application/json", "text/html"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("text/html", PAGE),
        ("TEXT/HTML; charset=utf-8", PAGE),
        ("text/*", PAGE),
        ("text/html,*/*", PAGE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", PAGE),
        ("application/json, text/html", JSON),
        ("application/json;q=0.5, text/html", PAGE),
        ("application/json, text/html;q=0", JSON),
        ("text/html;q=0.2, application/json; q=0.3", JSON),
        ("*/*, text/html;q=0", JSON),
        ("*/*, application/json;q=0", PAGE),
        ("text/html;q=0", JSON),
        ("text/html;q=2, application/json;q=0.1", JSON),
        ("text/htmlx", JSON),
        ("image/png", JSON),
        (";;,,q=", JSON),
    ],
)
def test_the_type_that_is_wanted_most(accept: str | None, expected: str) -> None:
    assert preferred(accept, (JSON, PAGE)) == expected
