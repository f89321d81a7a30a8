"""What ends by itself is started again, a bounded number of times in a row."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.embedded.keeper import Keeper
from service.embedded.processes import Child, ChildDied

TELLS_ITS_ID = "import os, signal, sys; open(sys.argv[1], 'w').write(str(os.getpid())); signal.pause()"
ENDS = "print('my last words'); raise SystemExit(3)"


@contextmanager
def kept(folder: Path, program: list[str], keeper: Keeper) -> Iterator[Child]:
    """A child in the care of a keeper."""
    child = Child("the part", [sys.executable, "-c", *program], log=folder / "log.txt")
    with keeper:
        keeper.keep(child, child.start)
        child.start()
        keeper.begin()
        yield child
        keeper.leave()
        child.stop(grace_seconds=60)


def test_a_killed_child_is_started_again_and_one_that_is_stopped_is_not(tmp_path: Path) -> None:
    said: list[str] = []
    ids = tmp_path / "ids"
    os.mkfifo(ids)
    with kept(tmp_path, [TELLS_ITS_ID, str(ids)], Keeper(said.append)) as child:
        first = int(ids.read_text())
        os.kill(first, signal.SIGKILL)
        second = int(ids.read_text())
        assert second == child.pid != first
    assert child.exit_code == -signal.SIGTERM
    assert said == ["the part ended by signal SIGKILL; starting it again"]


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1)])
def test_a_killed_child_is_started_again_though_nobody_listens_any_more(tmp_path: Path, error: BaseException) -> None:
    def say(_: str) -> None:
        raise error

    ids = tmp_path / "ids"
    os.mkfifo(ids)
    with kept(tmp_path, [TELLS_ITS_ID, str(ids)], Keeper(say)) as child:
        os.kill(int(ids.read_text()), signal.SIGKILL)
        assert int(ids.read_text()) == child.pid


def test_a_child_that_ends_again_and_again_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    given_up = threading.Event()
    said: list[str] = []
    keeper = Keeper(said.append, pauses=(0.0, 0.01))
    keeper.on_failure = given_up.set
    with kept(tmp_path, [ENDS], keeper):
        assert given_up.wait(60)
    assert said == [
        "the part ended with exit code 3; starting it again",
        "the part ended with exit code 3; starting it again in 0.01 s",
    ]
    with pytest.raises(ChildDied, match=r"(?s)exit code 3, and again each time it was started anew.*my last words"):
        raise keeper.failure or AssertionError


def test_a_child_that_cannot_be_started_counts_as_one_that_ended(tmp_path: Path) -> None:
    given_up = threading.Event()
    keeper = Keeper(print, pauses=(0.0,))
    keeper.on_failure = given_up.set
    child = Child("the part", [sys.executable, "-c", ENDS], log=tmp_path / "log.txt")

    def cannot_start() -> None:
        raise OSError("no process is to be had")

    with keeper:
        child.start()
        keeper.keep(child, cannot_start)
        keeper.begin()
        assert given_up.wait(60)
    assert "exit code 3" in str(keeper.failure)
