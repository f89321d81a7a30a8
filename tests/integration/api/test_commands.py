"""The client and the command line on the shared queue, against a served application."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select
from typer.testing import CliRunner, Result

from service import jobs
from service.cli import app
from service.client import Client, QueueLimitReached
from service.database import Database
from service.settings import Settings
from service.tables import UserSecret
from tests.integration.api.conftest import Api, Host, add_host, spec
from tests.integration.api.test_models import folder, zipped
from tests.integration.jobs.conftest import succeed


class Terminal:
    """Runs commands as their user does, with address and key in the environment."""

    def __init__(self, client: httpx.Client) -> None:
        key = client.headers["authorization"].removeprefix("Bearer ")
        self._environment = {"STILLHOUSE_URL": str(client.base_url).rstrip("/"), "STILLHOUSE_API_KEY": key}
        self.client = Client(self._environment["STILLHOUSE_URL"], key)

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        return CliRunner(env=self._environment).invoke(app, arguments, input=typed)

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--json"))


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"secret_key": SecretStr("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")})


@pytest.fixture
def ada(member: httpx.Client) -> Iterator[Terminal]:
    terminal = Terminal(member)
    with terminal.client:
        yield terminal


@pytest.fixture
def root(admin: httpx.Client) -> Iterator[Terminal]:
    terminal = Terminal(admin)
    with terminal.client:
        yield terminal


@pytest.fixture
def host(database: Database) -> Host:
    return add_host(database, "cuda:1,cpu:1", name="gpu-1")


def test_the_queue_shows_what_runs_what_waits_and_why(ada: Terminal, host: Host) -> None:
    assert "nothing waits for devices and nothing runs" in ada.text("queue")
    running, first, second = (ada.client.submit(spec(name=f"[{name}]")) for name in ("one", "two", "three"))
    fence = host.start()
    host.do(jobs.record_progress, fence, {"phase": "student", "step": 1}, remaining_seconds=600)
    lines = ada.text("queue").splitlines()
    assert [line for line in lines if line.endswith(("run", "runs", "devices"))] == ["1 job runs", "2 jobs wait for devices"]
    assert running.id in lines[2]
    assert "[one]" in lines[2], "a name is no markup"
    at = next(number for number, line in enumerate(lines) if first.id in line)
    assert lines[at].startswith("1  ")
    assert "in 1" in lines[at], "minutes, by the steps of what runs"
    assert lines[at + 1].strip().startswith("waits for a CPU slot: host gpu-1 has 0 free until about ")
    assert lines[at + 2].startswith("2  ")
    assert lines[at + 3].strip() == f"waits for 1 job that starts earlier for the same devices; {first.id} is next"
    told = ada.json("queue", "--pool", "default")
    assert ([job["id"] for job in told["running"]], [job["id"] for job in told["waiting"]]) == (
        [running.id],
        [first.id, second.id],
    )
    refused = ada.run("queue", "--pool", "labs")
    assert "there is no pool 'labs'" in str(refused.exception)


def test_explain_and_show_tell_what_a_job_waits_for(ada: Terminal, host: Host) -> None:
    running = ada.client.submit(spec())
    host.claim()
    queued = ada.client.submit(spec())
    needing = ada.client.submit(spec(depends_on=[queued.id]))
    for command in ("explain", "show"):
        assert "waits for a CPU slot: host gpu-1 has 0 free until about" in " ".join(ada.text(command, queued.id).split())
        assert f"waits for job {queued.id}, which is queued, to succeed" in " ".join(ada.text(command, needing.id).split())
        assert "waits for" not in ada.text(command, running.id)
    assert "fair share" in ada.text("explain", queued.id)
    told = ada.json("explain", queued.id)
    assert (told["blocker"]["cause"], told["blocker"]["job_ids"]) == ("devices", [running.id])
    assert "running, pause was asked for" in ada.text("pause", running.id)
    assert "), pause was asked for" in ada.text("show", running.id)
    assert ada.text("resume", running.id).split() == [running.id, "running"]


def test_priority_moves_a_job_and_high_is_the_admins(ada: Terminal, root: Terminal) -> None:
    first, second = ada.client.submit(spec()), ada.client.submit(spec())
    assert "queued, priority low" in ada.text("priority", first.id, "low")
    assert [job.id for job in ada.client.queue().waiting] == [second.id, first.id]
    assert "an admin's to give" in str(ada.run("priority", first.id, "high").exception)
    assert root.json("priority", first.id, "high")["priority"] == "high"
    assert [job.id for job in ada.client.queue().waiting] == [first.id, second.id]
    assert ada.run("priority", first.id, "urgent").exit_code == 2


def test_workers_are_shown_device_by_device_and_drained(ada: Terminal, root: Terminal, host: Host) -> None:
    job = ada.client.submit(spec())
    host.claim()
    lines = ada.text("workers").splitlines()
    assert [line.split()[-2:] for line in lines[1:]] == [["80", "GiB"], ["cpu:0", job.id]]
    assert (host.id in lines[1], host.id in lines[2]) == (True, False), "a worker is named once"
    assert "this needs the role admin" in str(ada.run("drain", host.id).exception)
    done = root.run("drain", host.id, "--finish")
    assert (done.stdout.split(), done.stderr.strip()) == ([host.id, "draining"], f"still on it: {job.id}")
    assert "draining" in ada.text("workers")
    assert root.json("undrain", host.id)["draining"] is False
    assert ada.json("workers")[0]["devices"][1]["job_ids"] == [job.id]


def test_usage_and_users_are_shown_and_limits_set_and_lifted(ada: Terminal, root: Terminal, host: Host) -> None:
    ada.client.submit(spec(resources={"gpus": 1}))
    host.do(succeed, host.start())
    assert ada.text("usage").splitlines()[1].split()[0] == "ada"
    assert [line["user"] for line in ada.json("usage", "--since", "7d")] == ["ada", "root"]
    assert "any number" in root.text("users", "ls")
    changed = root.json("users", "set", "ada", "--share-weight", "2", "--max-running", "3", "--max-queued", "0")
    assert (changed["share_weight"], changed["max_running_jobs"], changed["max_queued_jobs"]) == (2.0, 3, 0)
    lifted = root.json("users", "set", "ada", "--max-queued", "none")
    assert (lifted["max_running_jobs"], lifted["max_queued_jobs"]) == (3, None)
    assert "greater than or equal to 0" in str(root.run("users", "set", "ada", "--max-running", "-1").exception)
    assert root.json("users", "add", "zoe")["name"] == "zoe"
    assert "this needs the role admin" in str(ada.run("users", "ls").exception)


def test_a_full_queue_is_told_the_client_at_once(ada: Terminal, root: Terminal, api: Api) -> None:
    root.client.edit_user("ada", max_queued_jobs=0)
    with pytest.raises(QueueLimitReached, match="ask an admin for a higher max_queued_jobs") as refused:
        ada.client.submit(spec())
    assert not refused.value.temporary, "no later try of the same request is worth it by itself"


def test_what_a_job_depends_on_is_changed_by_the_client(ada: Terminal) -> None:
    needed, job = ada.client.submit(spec()), ada.client.submit(spec())
    assert ada.client.patch(job.id, depends_on=[needed.id]).status == "waiting"
    assert ada.client.explain(job.id).blocked_by == [needed.id]
    assert ada.client.patch(job.id, depends_on=[]).status == "queued"


def test_an_upload_prints_its_source_and_what_of_the_file_takes_no_part(ada: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,id\na,0,7\nb,1,8\n")
    done = ada.run("upload", str(path), "--task", "text-classification")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("dataset:ds_")
    assert "warning: column 'id' takes no part" in " ".join(done.stderr.split())


def test_a_model_is_named_by_a_command_and_listed_with_its_facts_and_uses(ada: Terminal, tmp_path: Path) -> None:
    (tmp_path / "teacher.zip").write_bytes(zipped(folder()))
    model = ada.client.upload_model(tmp_path / "teacher.zip", name="Signs").id
    assert ada.text("name", model, "signs") == "model:signs\n"
    ada.client.submit(spec(teacher={"source": "model:signs"}))
    (listed,) = ada.json("models")
    assert (listed["handle"], listed["parameters"], listed["used_by"]["count"]) == ("signs", 12, 1)
    row = ada.text("models").splitlines()[1]
    assert all(word in row for word in (model, "signs", "fp32"))
    assert ada.client.edit_model(model, name="Road signs").name == ada.client.model(model).name == "Road signs"
    assert ada.run("name", model).exit_code == 2
    assert ada.text("name", model, "--remove") == f"model:{model}\n"


def test_a_token_for_the_hub_is_read_from_standard_input_and_shown_nowhere(ada: Terminal, database: Database) -> None:
    set_ = ada.run("hub-token", "set", typed="hf_aTokenOfAdas\n")
    assert (set_.exit_code, ada.client.me().hub_token_set_at is not None) == (0, True), set_.output
    wrong = ada.run("hub-token", "set", typed="hf_aTokenOfAdas and more\n")
    assert wrong.exit_code != 0
    assert "hf_aTokenOfAdas" not in set_.output + wrong.output + str(wrong.exception)
    with database.transaction() as session:
        stored = session.scalars(select(UserSecret.value)).all()
    assert len(stored) == 1
    assert b"hf_aTokenOfAdas" not in stored[0]
    assert ada.run("hub-token", "remove").exit_code == 0
    assert ada.client.me().hub_token_set_at is None


def test_the_folder_of_a_network_is_uploaded_by_its_files(ada: Terminal, tmp_path: Path) -> None:
    given = tmp_path / "teacher"
    given.mkdir()
    for name, content in folder().items():
        (given / name).write_bytes(content)
    model = ada.json("upload", "--model", str(given))
    assert (model["name"], model["task"]) == ("teacher", "image-classification")
    assert [file["name"] for file in model["files"]] == sorted(folder())
    done = ada.run("upload", "--model", str(given), "--name", "again")
    assert done.stdout.startswith("model:model_")
    assert done.stdout.strip() != f"model:{model['id']}"
    (given / "labels.json").unlink()
    refused = ada.run("upload", "--model", str(given))
    assert refused.exit_code != 0
    assert "labels.json is missing" in refused.output + str(refused.exception)
    not_said = ada.run("upload", str(given))
    assert not_said.exit_code != 0
    assert "--model" in not_said.output + str(not_said.exception)


def test_a_dataset_is_shown_with_what_it_holds(ada: Terminal, tmp_path: Path) -> None:
    rows = [
        {"text": "word " * (1 + index % 8), "label": "ab"[index % 2], "split": "train" if index < 8 else "test"}
        for index in range(9)
    ]
    (tmp_path / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = ada.text("upload", str(tmp_path / "texts.jsonl"), "--task", "text-classification").strip()
    shown = [" ".join(line.split()) for line in ada.text("datasets", source).splitlines()]
    assert {f"source {source}", "text text string", "train 8 0", "a 1 4", "0 to 16 4 " + "█" * 30, "test train 1"} < set(shown)
    assert ada.json("datasets", source.removeprefix("dataset:"))["facts"]["shared_rows"][0]["rows"] == 1


def test_a_key_is_made_for_a_user_who_is_there_or_who_is_made_by_name(root: Terminal) -> None:
    unknown = root.run("keys", "create", "--user", "typo")
    assert str(unknown.exception).startswith("there is no user 'typo', but ")
    assert [user.name for user in root.client.users() if user.name == "typo"] == []
    assert root.text("keys", "create", "--new-user", "eva").startswith("sh_")
    assert root.text("keys", "create", "--user", "eva").startswith("sh_")
    assert "there is a user 'eva'" in str(root.run("keys", "create", "--new-user", "eva").exception)
    assert "whose key is it?" in str(root.run("keys", "create").exception)


def test_an_upload_says_what_it_was_read_for_and_is_deleted_by_its_source(ada: Terminal, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text;label\na;0\nb;1\n")
    done = ada.run("upload", str(tmp_path / "rows.csv"))
    source = done.stdout.strip()
    assert "read for text-classification: text 'text', label 'label'" in done.stderr
    assert "it was here before, as 'rows'" in ada.run("upload", str(tmp_path / "rows.csv"), "--name", "other").stderr
    assert source in ada.text("datasets")
    ada.text("delete", source)
    assert source not in ada.text("datasets")


def test_models_are_listed_as_a_spec_names_them(ada: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(zipped(folder()))
    model = ada.client.upload_model(tmp_path / "mine.zip", name="mine")
    assert ada.json("models")[0]["id"] == model.id
    assert f"model:{model.id}" in ada.text("models")
    ada.text("name", model.id, "kept")
    assert "kept" in ada.text("models")
    ada.text("delete", "model:kept")
    assert ada.json("models") == []


def test_one_method_is_shown_with_its_parameters(ada: Terminal) -> None:
    shown = ada.text("catalogue", "methods", "dkd")
    assert "warmup_epochs" in shown
    assert "≥ 0" in shown
    assert ada.json("catalogue", "methods", "dkd")[0]["name"] == "dkd"
    assert "there is no 'dk'" in str(ada.run("catalogue", "methods", "dk").exception)
