"""What the README prints, run as it is printed, against a running service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.embedded.stack import Stack
from service.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(running_stack: Stack, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """As in a second terminal beside `stillhouse up`, in a folder that holds the project's examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    connection = running_stack.connection
    return environment | {
        "STILLHOUSE_HOME": str(running_stack.folder),
        "STILLHOUSE_URL": connection.url,
        "STILLHOUSE_API_KEY": connection.api_key,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
    }


@pytest.mark.parametrize("number", range(len(blocks("bash"))))
def test_the_commands_of_the_readme_work(number: int, shell: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-euc", blocks("bash")[number]], cwd=tmp_path, env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "curl" in blocks("bash")[number]:
        assert json.loads((tmp_path / "job.json").read_text())["object"] == "job"
        assert "event: job.succeeded" in done.stdout
        assert (tmp_path / "model.safetensors").stat().st_size > 1000


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_of_the_readme_works(number: int, shell: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]], cwd=tmp_path, env=shell, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("succeeded")
    assert list(tmp_path.glob("runs/job_*/student/model.safetensors"))


def test_the_tree_of_the_readme_is_that_of_the_project() -> None:
    (tree,) = re.findall(r"^```\n(service/ .*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    missing, folder = [], Path()
    for line in tree.splitlines():
        if not line.startswith(" "):
            folder = ROOT
        names = re.findall(r"(?:^|(?<=\s))([a-z_]+(?:\.py|/))(?=\s|$)", line)
        assert names, line
        missing += [name for name in names if not (folder / name).exists() and not (ROOT / name).exists()]
        if not line.startswith(" "):
            folder = ROOT / names[0]
    assert not missing


def test_every_setting_of_the_readme_is_one_and_none_is_left_out() -> None:
    told = set(re.findall(r"`(STILLHOUSE_[A-Z_]+|DATABASE_URL|REDIS_URL|CUDA_VISIBLE_DEVICES)`", README))
    of_client = {"STILLHOUSE_URL", "STILLHOUSE_API_KEY", "STILLHOUSE_HOME"}
    known = {str(field.validation_alias or f"STILLHOUSE_{name.upper()}") for name, field in Settings.model_fields.items()}
    assert told - of_client == known


def test_every_make_target_of_the_readme_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE))
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
