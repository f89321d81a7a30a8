"""Moments as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from service.cli.failure import CommandFailed
from service.cli.team import since_when


@pytest.mark.parametrize(("text", "past"), [("24h", timedelta(hours=24)), ("7d", timedelta(days=7)), ("0h", timedelta())])
def test_a_span_is_counted_back_from_now(text: str, past: timedelta) -> None:
    earliest = datetime.now(UTC) - past
    assert earliest <= since_when(text) <= datetime.now(UTC) - past


def test_a_date_is_this_machines_and_a_zone_that_is_given_stays() -> None:
    assert since_when("2026-11-02") == datetime(2026, 11, 2).astimezone()
    assert since_when("2026-11-02T06:00+05:30") == datetime(2026, 11, 2, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "7", "d", "-7d", "2026-13-01", ""])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="write 24h, 7d or a date"):
        since_when(text)
