"""Conditional requests."""

import pytest

from service.api.conditions import event_id, is_unchanged, read_range, require_match, wait_seconds
from service.errors import InvalidRequest, PreconditionFailed, RangeNotSatisfiable


@pytest.mark.parametrize("header", ['"3"', 'W/"3"', '"1", "3"', "*", ' W/"2" ,W/"3"'])
def test_an_etag_that_is_known_is_unchanged(header: str) -> None:
    assert is_unchanged('"3"', header)


@pytest.mark.parametrize("header", [None, "", '"33"', "3", '"1","2"'])
def test_another_etag_is_a_change(header: str | None) -> None:
    assert not is_unchanged('"3"', header)


def test_if_match_refuses_another_version() -> None:
    require_match('"3"', None)
    require_match('"3"', '"3"')
    with pytest.raises(PreconditionFailed):
        require_match('"3"', '"2"')


@pytest.mark.parametrize("header", ['"3"', "*", ' "2" ,"3"', 'W/"3", "3"'])
def test_if_match_takes_this_very_version(header: str) -> None:
    require_match('"3"', header)


@pytest.mark.parametrize("header", ['W/"3"', '"2", W/"3"', "", "3"])
def test_if_match_refuses_a_version_that_is_only_as_good(header: str) -> None:
    with pytest.raises(PreconditionFailed):
        require_match('"3"', header)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("", None),
        ("return=minimal", None),
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("Wait = 10; x", 10),
        ("wait=600", 60),
        ("wait=0", 0),
        ("wait=-1", None),
        ("wait=ten", None),
        ("await=5", None),
    ],
)
def test_the_wait_that_is_preferred(prefer: str | None, seconds: int | None) -> None:
    assert wait_seconds(prefer) == seconds


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    found = read_range(header, 100)
    assert (None if found is None else (found.start, found.end)) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=-0", "bytes=200-300"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        read_range(header, 100)


def test_event_ids_are_numbers() -> None:
    assert (event_id(None), event_id(""), event_id("12")) == (0, 0, 12)
    for odd in ("x", "-1", "١", "9" * 19):
        with pytest.raises(InvalidRequest):
            event_id(odd)
