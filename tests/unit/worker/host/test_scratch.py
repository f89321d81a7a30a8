"""The worker's scratch folder: there while it lives, gone afterwards, whatever ended it."""

import signal
import subprocess
import sys
from pathlib import Path

from worker.host.scratch import scratch_folder

_HOLD = """
import sys, pathlib
from worker.host.scratch import scratch_folder
with scratch_folder(pathlib.Path(sys.argv[1]), "worker_killed") as folder:
    (folder / "weights").write_text("large")
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(parent: Path) -> subprocess.Popen[str]:
    """Another worker's process, which holds its folder until it is ended."""
    command = [sys.executable, "-c", _HOLD, str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_it_goes_with_its_worker(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch", "worker_1") as folder:
        (folder / "job").mkdir()
        assert folder.parent == tmp_path / "scratch"
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == []


def test_that_of_a_killed_worker_goes_with_the_next_start(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (tmp_path / "stillhouse-worker_killed" / "weights").exists()
    with scratch_folder(tmp_path, "worker_2"):
        assert sorted(path.name for path in (tmp_path).iterdir()) == ["stillhouse-worker_2"]


def test_that_of_a_living_worker_stays(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        with scratch_folder(tmp_path, "worker_2"):
            assert sorted(path.name for path in (tmp_path).iterdir()) == ["stillhouse-worker_2", "stillhouse-worker_killed"]
        assert other.poll() is None
        other.communicate("")
