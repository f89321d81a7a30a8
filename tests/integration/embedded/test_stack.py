"""The stack of one folder: its port is its own from the beginning, also of starts at one moment; its key is kept."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.embedded.stack import PortTaken, _environment, _secret_key, listen
from service.secrets import checked_key

_NUM_STARTS = 8


def test_of_starts_at_one_moment_each_has_a_port_of_its_own() -> None:
    with ThreadPoolExecutor(_NUM_STARTS) as pool, ExitStack() as held:
        listeners = [held.enter_context(each) for each in pool.map(listen, [None] * _NUM_STARTS)]
        assert len({listener.getsockname()[1] for listener in listeners}) == _NUM_STARTS


def test_of_starts_on_one_port_one_has_it_and_the_others_are_told_so() -> None:
    with listen(None) as held:
        port = held.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is taken"):
            listen(port)
    with listen(port) as again:
        assert again.getsockname()[1] == port


def test_who_connects_before_the_api_accepts_waits_and_is_not_refused() -> None:
    with listen(None) as held, socket.create_connection(held.getsockname()) as client:
        accepted, _ = held.accept()
        with accepted:
            accepted.sendall(b"ready")
            assert client.recv(5) == b"ready"


def test_the_key_of_a_folder_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret.key"
    file.with_suffix(".new").write_text("of a start that was killed")
    key = _secret_key(file)
    assert checked_key(key) == key != ""
    assert file.stat().st_mode & 0o777 == 0o600
    assert (_secret_key(file), [path.name for path in tmp_path.iterdir()]) == (key, [file.name])
    assert _secret_key(tmp_path / "other.key") != key


def test_a_key_of_the_environment_goes_before_the_folders_and_an_empty_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for given in ("", "a key", None):
        if given is None:
            monkeypatch.delenv("STILLHOUSE_SECRET_KEY")
        else:
            monkeypatch.setenv("STILLHOUSE_SECRET_KEY", given)
        found.append(_environment(tmp_path, database_url="d", redis_url="r")["STILLHOUSE_SECRET_KEY"])
    own = (tmp_path / "secret.key").read_text()
    assert found == [own, "a key", own]
