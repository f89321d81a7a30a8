"""Tables for people, in terminals of any width."""

import pytest
from rich.console import Console

from service.cli import tables
from service.cli.tables import print_rows

ROWS = [
    {"id": "job_01KBABCDEFGHJKMNPQRSTVWXYZ", "name": "a long name of a job", "owner": "ada"},
    {"id": "job_01KBBBCDEFGHJKMNPQRSTVWXYZ", "name": "", "owner": "a-user-with-a-name-of-33-letters"},
]


def printed(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(tables, "out", Console(width=width, highlight=False, soft_wrap=True))
    print_rows(ROWS, wide=["name"])
    return capsys.readouterr().out


def test_a_row_is_a_line_where_it_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(printed(100, monkeypatch, capsys).splitlines()) == 3


def test_a_name_is_broken_before_anything_else_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(84, monkeypatch, capsys).splitlines()
    assert lines[1].startswith(ROWS[0]["id"])
    assert len(lines) > 3
    assert max(map(len, lines)) <= 84


@pytest.mark.parametrize("width", [42, 60])
def test_in_a_narrow_terminal_every_field_is_a_line_and_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(width, monkeypatch, capsys)
    for row in ROWS:
        for value in filter(None, row.values()):
            assert value in text
