"""What README and docs print, run as it is printed, against a running service. The examples train for an epoch here.

The rest of what they say is compared by ``tests/unit/test_documents.py``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.embedded.stack import Stack
from tests.documents import ROOT, every_block

COMMANDS = every_block("bash")
PROGRAMS = every_block("python")


def named(found: list[tuple[str, str]]) -> list[str]:
    """A name for each block: its page, and which block of the page it is."""
    pages = [page for page, _ in found]
    return [f"{page}-{pages[:number].count(page)}" for number, page in enumerate(pages)]


@pytest.fixture
def shell(running_stack: Stack, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """As in a second terminal beside `stillhouse up`, in a folder that holds the project's examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "examples").glob("*.yaml"):
        path.write_text(re.sub(r"\bepochs: \d+", "epochs: 1", path.read_text()))
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    connection = running_stack.connection
    return environment | {
        "STILLHOUSE_HOME": str(running_stack.folder),
        "STILLHOUSE_URL": connection.url,
        "STILLHOUSE_API_KEY": connection.api_key,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
    }


@pytest.mark.parametrize("block", [block for _, block in COMMANDS], ids=named(COMMANDS))
def test_the_commands_of_the_documents_work(block: str, shell: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "curl" in block:
        assert json.loads((tmp_path / "job.json").read_text())["object"] == "job"
        assert "event: job.succeeded" in done.stdout
        assert (tmp_path / "model.safetensors").stat().st_size > 1000


@pytest.mark.parametrize("block", [block for _, block in PROGRAMS], ids=named(PROGRAMS))
def test_the_python_of_the_documents_works(block: str, shell: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("succeeded")
    assert list(tmp_path.glob("runs/job_*/student/model.safetensors"))


def test_the_blocks_that_are_run_are_those_that_a_reader_runs() -> None:
    assert {block.split(maxsplit=1)[0] for _, block in COMMANDS} >= {"curl", "stillhouse"}
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/spec.md", "docs/queue.md"}
    assert [page for page, _ in PROGRAMS] == ["README.md"]
