"""Commands as processes: what they print and the code that they end with."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Commands
from tests.conftest import reserved_port

SPEC = """
task: image-classification
dataset: {source: "builtin:digits"}
teacher: {architecture: {name: small-cnn}, training: {epochs: 1}}
student: {architecture: {name: small-cnn, width: 8}}
"""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(commands: Commands, tmp_path: Path) -> Run:
    """Runs a command that knows no service, save of what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STILLHOUSE_", "DATABASE_"))}

    def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        known = kept | {"STILLHOUSE_HOME": str(tmp_path), "COLUMNS": "300"} | environment
        return commands.run(*arguments, environment=known, stdin=stdin)

    return run


def test_a_spec_is_checked_without_a_service(run: Run) -> None:
    done = run("validate", "-", "--offline", "--json", stdin=SPEC)
    assert done.returncode == 0, done.stderr
    assert '"temperature": 4.0' in done.stdout, "what is printed is complete"


def test_every_fault_of_a_spec_is_printed_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(SPEC + "method: {name: soft-targets, temperature: 0}\nepochs: 3\n")
    done = run("validate", str(tmp_path / "bad.yaml"), "--offline")
    assert done.returncode == 2
    assert "2 faults" in done.stderr
    assert "/method/temperature: " in done.stderr
    assert "/epochs: " in done.stderr


def test_what_is_no_spec_is_refused(run: Run) -> None:
    done = run("validate", "-", "--offline", stdin="- a\n- list\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a spec is an object, not list" in done.stderr


def test_a_file_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    done = run("submit", str(tmp_path / "none.yaml"), STILLHOUSE_URL="http://127.0.0.1:1", STILLHOUSE_API_KEY="k")
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_nobody_listening_is_told_with_the_address_and_what_to_do(run: Run) -> None:
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}"
        done = run("ls", STILLHOUSE_URL=url, STILLHOUSE_API_KEY="k")
    assert done.returncode == 3
    assert url in done.stderr
    assert "stillhouse up" in done.stderr


@pytest.mark.parametrize("arguments", [["ls"], ["watch", "job_1"]])
def test_no_service_known_is_told_apart_from_one_that_is_away(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 3
    assert "STILLHOUSE_URL is not set" in done.stderr


@pytest.mark.parametrize("arguments", [["show", ""], ["show", "../../etc"], ["logs", "--follow", ""], ["keys", "revoke", ".."]])
def test_what_can_be_no_id_is_a_usage_error_and_asks_for_nothing(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, STILLHOUSE_URL="http://127.0.0.1:1", STILLHOUSE_API_KEY="k")
    assert done.returncode == 2, done.stderr
    assert f"error: {arguments[-1]!r} is no id; GET /v1/" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_word_that_no_option_knows_is_a_usage_error(run: Run) -> None:
    assert run("cancel", "job_1", "--keep", "everything").returncode == 2


def test_migrating_wants_a_database(run: Run) -> None:
    done = run("migrate")
    assert done.returncode == 2
    assert "DATABASE_URL" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["usage", "--since", "yesterday"], "write 24h, 7d or a date"),
        (["users", "set", "ada"], "nothing to change: give --share-weight, --max-running or --max-queued"),
        (["users", "set", "ada", "--max-running", "some"], "write a number of jobs, or none"),
    ],
)
def test_a_team_command_that_says_nothing_of_use_is_told_what_to_write(run: Run, arguments: list[str], words: str) -> None:
    done = run(*arguments, STILLHOUSE_URL="http://127.0.0.1:1", STILLHOUSE_API_KEY="k")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


def test_a_key_that_stands_twice_in_a_file_is_told_with_its_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(SPEC + "method: {name: dkd}\ntraining: {epochs: 3}\nmethod: {name: dist}\n")
    done = run("validate", str(tmp_path / "twice.yaml"), "--offline")
    assert done.returncode == 2
    assert "/method: this field stands 2 times, on lines 6, 8" in done.stderr


def test_what_is_no_yaml_is_told_in_one_sentence_with_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(SPEC + "evaluation: {control: !!bool maybe}\n")
    for source, stdin in ((str(tmp_path / "job.yaml"), ""), ("-", SPEC + "labels: {a: [b}\n")):
        done = run("validate", source, "--offline", stdin=stdin)
        assert (done.returncode, done.stdout) == (2, "")
        assert "is not YAML: line 6, column " in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["migrate", "admin-key"])
def test_a_database_that_is_not_there_is_one_sentence(run: Run, command: str) -> None:
    with reserved_port() as port:
        done = run(command, DATABASE_URL=f"postgresql://ada:secret@127.0.0.1:{port}/jobs")
    assert done.returncode == 3, done.stderr
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize("command", ["migrate", "admin-key", "serve"])
def test_an_address_of_another_kind_of_database_is_one_sentence(run: Run, command: str) -> None:
    done = run(command, DATABASE_URL="mysql://host/jobs", REDIS_URL="redis://host", STILLHOUSE_STORE="file:///x")
    assert done.returncode == 2, done.stderr
    assert "DATABASE_URL must be a PostgreSQL address" in done.stderr
    assert len(done.stderr.splitlines()) == 1
