"""``stillhouse demo``, which is what ``make demo`` runs, and what it prints."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import own_folder


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where one demo follows the other: the servers' data are made once."""
    with own_folder() as folder:
        yield folder


@pytest.fixture
def spec_file(tmp_path: Path, spec: dict[str, object]) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def demo(spec_file: Path, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "demo", str(spec_file), "--out", "runs"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_it_trains_shows_the_card_and_its_words_load_the_student(
    folder: Path, spec_file: Path, environment: dict[str, str]
) -> None:
    before = {process.pid for process in psutil.process_iter()}
    done = demo(spec_file, folder, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for phase in ("teacher", "student", "evaluation", "export"):
        assert f"\n{phase}" in done.stderr
    assert re.search(r"student .*%", done.stdout)
    student = re.search(r"The student is in (\S+)\. Load it with:", done.stdout)
    assert student is not None
    assert (folder / student[1] / "model.safetensors").is_file()
    snippet = done.stdout.split("Load it with:\n")[1]
    subprocess.run([sys.executable, "-c", snippet], cwd=folder, check=True, env=environment)
    left = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before]
    assert not [process for process in left if str(folder) in " ".join(process.info["cmdline"] or [])]


def test_a_job_that_fails_is_told_with_its_error(
    tmp_path: Path, folder: Path, spec: dict[str, object], environment: dict[str, str]
) -> None:
    spec["training"] = {"epochs": 50, "optimizer": {"name": "sgd", "learning_rate": 1000.0}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    done = demo(tmp_path / "job.yaml", folder, environment)
    assert done.returncode == 1
    assert "non_finite_loss" in done.stderr


def test_a_bad_spec_is_told_with_its_faults_before_any_server_starts(
    tmp_path: Path, spec: dict[str, object], environment: dict[str, str]
) -> None:
    spec["student"] = {}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    done = demo(tmp_path / "job.yaml", tmp_path, environment)
    assert done.returncode == 2
    assert "/student/architecture" in done.stderr
    assert "starting" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_job_for_more_than_this_machine_has_is_refused(
    tmp_path: Path, folder: Path, spec: dict[str, object], environment: dict[str, str]
) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec | {"resources": {"gpus": 64}}))
    done = demo(tmp_path / "job.yaml", folder, environment)
    assert done.returncode == 2, done.stderr
    assert "no worker of pool 'default' has 64 GPUs" in done.stderr
