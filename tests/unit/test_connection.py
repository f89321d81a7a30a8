"""Where the client finds the service and its key."""

from pathlib import Path

import pytest

from service.connection import Connection, NoConnection, find_connection, read_connection, write_connection

LEFT = Connection(url="http://127.0.0.1:8321", api_key="sh_left")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STILLHOUSE_URL", "STILLHOUSE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STILLHOUSE_HOME", str(tmp_path))
    return tmp_path


def test_the_file_is_readable_by_its_user_alone_even_when_it_replaces_one_that_was_not(home: Path) -> None:
    (home / "connection.json").write_text("{}")
    (home / "connection.json").chmod(0o644)
    path = write_connection(home, LEFT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_connection(home) == LEFT


def test_the_file_answers_where_nothing_else_does(home: Path) -> None:
    write_connection(home, LEFT)
    assert find_connection() == LEFT


def test_arguments_come_before_the_environment_and_the_environment_before_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_connection(home, LEFT)
    monkeypatch.setenv("STILLHOUSE_URL", "https://team.example.org/")
    monkeypatch.setenv("STILLHOUSE_API_KEY", "sh_team")
    assert find_connection() == Connection(url="https://team.example.org", api_key="sh_team")
    assert find_connection(url="http://other", api_key="sh_other") == Connection(url="http://other", api_key="sh_other")


def test_the_key_of_the_file_is_not_sent_to_another_address(home: Path) -> None:
    write_connection(home, LEFT)
    assert find_connection(url="https://elsewhere.example.org").api_key == ""
    assert find_connection(url=LEFT.url + "/").api_key == LEFT.api_key


def test_nobody_knows_a_service(home: Path) -> None:
    with pytest.raises(NoConnection, match="stillhouse up"):
        find_connection()


def test_a_damaged_file_is_told_apart_from_none(home: Path) -> None:
    (home / "connection.json").write_text('{"url": ')
    with pytest.raises(NoConnection, match=r"connection\.json is damaged .* start it again"):
        find_connection()


def test_a_broken_file_counts_as_none(home: Path) -> None:
    (home / "connection.json").write_text('{"url": ')
    assert read_connection(home) is None
