"""The Python client against the whole stack."""

import hashlib
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.cli.failure import CommandFailed
from service.client import Client, Conflict, InvalidSpec, Job, NotFound, Unauthenticated
from service.embedded.stack import Stack
from service.spec.data import DatasetSpec
from tests.acceptance.cutting_proxy import CuttingProxy
from tests.commands import Commands
from worker.data import load_data
from worker.tasks import TASKS

Spec = dict[str, object]


@pytest.fixture(scope="module")
def done(running_stack: Stack) -> Job:
    """A job that succeeded."""
    spec = {
        "name": "done",
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 16}, "training": {"epochs": 4}},
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"epochs": 4},
        "labels": {"suite": "client"},
    }
    with Client(running_stack.connection.url, running_stack.connection.api_key) as client:
        job = client.wait(client.submit(spec).id, timeout_seconds=240)
    assert job.status == "succeeded", job.error
    return job


def test_a_job_is_watched_to_its_end_and_every_change_is_newer_than_the_last(client: Client, spec: Spec) -> None:
    snapshots = list(client.watch(client.submit(spec).id))
    versions = [snapshot.version or 0 for snapshot in snapshots]
    assert versions == sorted(set(versions))
    assert snapshots[-1].status == "succeeded", snapshots[-1].error
    assert all(not snapshot.terminal for snapshot in snapshots[:-1])


def test_the_same_key_submits_once(client: Client, spec: Spec) -> None:
    first = client.submit(spec, idempotency_key="once")
    assert client.submit(spec, idempotency_key="once").id == first.id
    client.cancel(first.id, keep="none")


def test_a_cancelled_job_ends_so(client: Client, spec: Spec) -> None:
    job = client.submit({**spec, "training": {"epochs": 100_000}})
    client.cancel(job.id, keep="none")
    assert client.wait(job.id, timeout_seconds=120).status == "cancelled"
    with pytest.raises(Conflict):
        client.resume(job.id)


def test_a_spec_is_validated_with_nothing_stored(client: Client, spec: Spec) -> None:
    complete = client.validate({**spec, "name": "never stored"})
    assert complete["method"]["temperature"] == 4.0
    previewed = client.preview({**spec, "name": "never stored"}, samples=2)
    assert [sample.place for sample in previewed.samples["student"]] == [sample.place for sample in previewed.samples["teacher"]]
    assert "never stored" not in [job.name for job in client.jobs()]
    with pytest.raises(InvalidSpec) as refused:
        client.validate({**spec, "method": {"name": "soft-targets", "temperature": 0}, "epochs": 3})
    assert [fault.pointer for fault in refused.value.faults] == ["/method/temperature", "/epochs"]


def test_jobs_come_page_by_page_newest_first(client: Client, done: Job, spec: Spec) -> None:
    made = [client.submit({**spec, "name": f"paged {number}", "labels": {"paged": "yes"}}).id for number in range(3)]
    for job_id in made:
        client.cancel(job_id, keep="none")
    assert [job.id for job in client.jobs(label="paged:yes")] == made[::-1]


def test_events_go_on_after_every_cut_with_none_lost_and_none_twice(running_stack: Stack, done: Job) -> None:
    connection = running_stack.connection
    with Client(connection.url, connection.api_key) as direct:
        expected = [event.seq for event in direct.events_until_now(done.id)]
    with (
        CuttingProxy(connection.url, after_bytes=1500, num_cuts=3, only=b"/events").running() as proxy,
        Client(proxy.url, connection.api_key) as client,
    ):
        assert [event.seq for event in client.events(done.id)] == expected
        assert proxy.cuts_left == 0


def test_metrics_logs_and_report_tell_of_the_training(client: Client, done: Job) -> None:
    metrics = client.metrics(done.id, names=["student/validation_accuracy", "student/train_loss"])
    assert set(metrics) == {"student/validation_accuracy", "student/train_loss"}
    assert all(0 <= value <= 1 for _, value in metrics["student/validation_accuracy"])
    whole = "".join(client.logs(done.id))
    assert "".join(client.logs(done.id, follow=True)).strip() == whole.strip()
    assert client.logs(done.id, tail=1)
    assert client.report_card(done.id).student.test_score == client.report(done.id)["student"]["test_accuracy"] > 0.2


def test_an_uploaded_dataset_and_an_uploaded_teacher_train_a_student(
    running_stack: Stack, client: Client, done: Job, spec: Spec, tmp_path: Path
) -> None:
    read = DatasetSpec(source="builtin:digits", input="image")
    split = load_data(read, None, task=TASKS["image-classification"]).splits["train"]
    np.savez(tmp_path / "digits.npz", image=split.inputs[:400, 0].numpy(), label=split.labels[:400].numpy())
    dataset = client.upload_dataset(tmp_path / "digits.npz", name="some digits", task="image-classification")
    client.download(done.id, tmp_path, names=["student"])
    archive = shutil.make_archive(str(tmp_path / "teacher"), "zip", tmp_path / "student")
    teacher = client.upload_model(Path(archive), name="a teacher")
    parts = {"dataset": {"source": f"dataset:{dataset.id}"}, "teacher": {"source": f"model:{teacher.id}"}}
    job = client.wait(client.submit(spec | parts).id, timeout_seconds=240)
    assert job.status == "succeeded", job.error
    assert client.report(job.id)["teacher"]["source"] == f"model:{teacher.id}"
    assert list((running_stack.folder / "store").rglob("model.safetensors")), "the store is where it was asked to be"


def test_a_teacher_that_does_not_know_the_data_stops_the_job_unless_the_spec_accepts_it(
    client: Client, done: Job, spec: Spec, tmp_path: Path
) -> None:
    client.download(done.id, tmp_path, names=["student"])
    labels = tmp_path / "student" / "labels.json"
    names = json.loads(labels.read_text())
    labels.write_text(json.dumps([*names[1:], names[0]]))
    archive = shutil.make_archive(str(tmp_path / "teacher"), "zip", tmp_path / "student")
    source = f"model:{client.upload_model(Path(archive), name='of other classes').id}"
    refused = client.wait(client.submit(spec | {"teacher": {"source": source}}).id, timeout_seconds=240)
    assert refused.error is not None
    assert (refused.error.code, refused.attempt) == ("teacher_unfit", 0), "in its check, before it waits"
    assert "no better than a constant guess" in refused.error.message

    accepted = spec | {"teacher": {"source": source, "accept_score": "any"}, "training": {"epochs": 1}}
    job = client.wait(client.submit(accepted).id, timeout_seconds=240)
    assert job.status == "succeeded", job.error
    assert job.result is not None
    told = {warning["code"]: warning["message"] for warning in job.result["warnings"]}
    assert "no better than a constant guess" in told["teacher_at_chance"]
    assert {warning.code for warning in client.report_card(job.id).warnings} == told.keys()
    events = [event.message for event in client.events_until_now(job.id) if event.type == "job.warning"]
    assert set(told.values()) <= set(events)
    assert len(events) == len(set(events)), "the check and the attempt find the same, and tell it once"


def test_a_download_goes_on_after_a_cut_and_ends_with_the_recorded_bytes(running_stack: Stack, done: Job, tmp_path: Path) -> None:
    connection = running_stack.connection
    with (
        CuttingProxy(connection.url, after_bytes=3000, num_cuts=2, only=b"/artifacts/student/model").running() as proxy,
        Client(proxy.url, connection.api_key) as client,
    ):
        paths = client.download(done.id, tmp_path, names=["student"])
        recorded = {artifact.name: artifact.sha256 for artifact in client.artifacts(done.id)}
        assert proxy.cuts_left == 0
    assert {path.relative_to(tmp_path).as_posix() for path in paths} >= {"student/config.json", "student/model.safetensors"}
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == recorded[path.relative_to(tmp_path).as_posix()]
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_is_here_is_not_fetched_again_and_a_damaged_one_is(client: Client, done: Job, tmp_path: Path) -> None:
    (path,) = client.download(done.id, tmp_path, names=["spec.json"])
    whole, first = path.read_bytes(), path.stat().st_ino
    client.download(done.id, tmp_path, names=["spec.json"])
    assert path.stat().st_ino == first
    path.write_bytes(b"x" * len(whole))
    client.download(done.id, tmp_path, names=["spec.json"])
    assert path.read_bytes() == whole


def test_what_a_spec_may_name_is_listed(client: Client) -> None:
    assert "soft-targets" in [method["name"] for method in client.methods()]
    assert "small-cnn" in [architecture["name"] for architecture in client.architectures()]
    assert "crop" in [augmentation["name"] for augmentation in client.augmentations()]
    assert "digits" in [dataset["name"] for dataset in client.builtin_datasets()]


def test_a_key_works_until_it_is_revoked(client: Client) -> None:
    made = client.create_key(user="grace", role="viewer")
    with Client(client.url, made.key) as grace:
        assert isinstance(list(itertools.islice(grace.jobs(), 1)), list)
        client.revoke_key(made.id)
        with pytest.raises(Unauthenticated):
            next(grace.jobs())
    assert made.key not in json.dumps([key.model_dump(mode="json") for key in client.keys()])  # noqa: SIM118


def test_what_does_not_exist_is_told_so(client: Client) -> None:
    with pytest.raises(NotFound) as missing:
        client.job("job_00000000000000000000000000")
    assert missing.value.request_id


def test_the_command_line_finds_the_service_by_its_folder(
    running_stack: Stack, done: Job, commands: Commands, environment: dict[str, str], tmp_path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return commands.run(*arguments, environment=environment | {"STILLHOUSE_HOME": str(running_stack.folder)})

    assert json.loads(run("show", done.id, "--json").stdout)["status"] == "succeeded"
    assert done.id in run("ls").stdout
    card = run("watch", done.id)
    assert card.returncode == 0, card.stderr
    assert "test accuracy" in card.stdout
    assert run("download", done.id, "student", "--out", str(tmp_path)).returncode == 0
    assert (tmp_path / "student" / "model.safetensors").is_file()
    assert "student/validation_accuracy" in run("metrics", done.id).stdout
    refused = run("cancel", done.id)
    assert refused.returncode in {0, 2}, "cancelling what has ended is harmless or refused, never a defect"


def test_a_command_takes_a_name_or_the_beginning_of_an_id_and_compares_what_is_there(
    running_stack: Stack, client: Client, done: Job, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_HOME", str(running_stack.folder))
    other = client.submit({**spec, "name": "found by it", "depends_on": [done.id], "training": {"epochs": 100_000}})

    def run(*arguments: str) -> str:
        answer = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    assert json.loads(run("show", "found by it"))["id"] == other.id
    assert json.loads(run("show", other.id[: len("job_") + 18]))["id"] == other.id
    assert json.loads(run("show", other.id.removeprefix("job_").upper()))["id"] == other.id
    assert json.loads(run("diff", done.id, "found by it"))["/training/epochs"] == [4, 100_000]
    compared = json.loads(run("compare", "found by it", done.id))
    assert compared["jobs"][done.id]["result"]["student"]["test_accuracy"] > 0.2
    assert compared["differing_fields"]["/training/epochs"] == [4, 100_000], "the best comes first"
    with pytest.raises(CommandFailed, match="no job's id begins with 'nothing'"):
        run("show", "nothing")
    with pytest.raises(CommandFailed, match=r"'job_' may be \d+ jobs; write more of the id:\n  job_"):
        run("show", "job_")
    for command in ("download", "report"):
        with pytest.raises(CommandFailed, match="has not ended: it is ") as early:
            run(command, "found by it")
        assert early.value.exit_code == 1
    never_ran = client.submit({**spec, "depends_on": [other.id]}).id
    client.cancel(never_ran)
    client.cancel(other.id, keep="none")
    with pytest.raises(CommandFailed, match="has left no files: it is cancelled"):
        run("download", never_ran, "--out", str(tmp_path))
