"""A job that is killed anywhere, and started again, ends with the same student, bit for bit, as one that never was."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import pytest

from worker.protocol import (
    CHECKPOINT_FILE,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    PhaseStarted,
    Progress,
    Stopped,
    StopRequest,
    decode_event,
    encode,
)
from worker.tasks import load_network

# 1,259 training images in batches of 128: ten an epoch.
DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {
        "architecture": {"name": "small-cnn", "width": 4},
        "training": {
            "epochs": 5,
            "batch_size": 128,
            "checkpoint_steps": 7,
            "early_stopping": {"metric": "loss", "patience": 2},
            "optimizer": {"name": "adamw", "learning_rate": 0.05},
        },
    },
    "student": {"architecture": {"name": "small-cnn", "width": 2}},
    "training": {"epochs": 3, "batch_size": 128, "gradient_accumulation": 3, "gradient_clip_norm": 1.0, "checkpoint_steps": 3},
    "evaluation": {"control": True},
}
VIT: dict[str, Any] = {
    "model_type": "vit",
    "config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "patch_size": 4,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
}
WITH_DROPOUT: dict[str, Any] = DIGITS | {
    "student": {"architecture": {"name": "transformers", **VIT}},
    "teacher": {"architecture": {"name": "transformers", **VIT}, "training": {"max_steps": 9, "checkpoint_steps": 4}},
    "training": {
        "max_steps": 14,
        "batch_size": 128,
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
        "checkpoint_steps": 4,
    },
    "evaluation": {"control": False},
}


@dataclass
class Attempt:
    """What one trainer process said, and how it ended."""

    events: list[Event]
    steps: int
    exit_code: int

    @property
    def last(self) -> Event:
        return self.events[-1]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


Answer = StopRequest | signal.Signals | None
"""What the test says to an event, or to a look for a stop: go on, stop, or die here."""


class Host:
    """The process that trainers are forked from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        address = str(folder / "host.sock")
        with Listener(address, "AF_UNIX") as listener:
            environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
            self._process = subprocess.Popen([sys.executable, "-m", "tests.integration.trainer_host", address], env=environment)
            self._control = listener.accept()

    def run(
        self,
        spec: dict[str, Any],
        folder: Path,
        *,
        on_event: Callable[[Event], Answer] = lambda event: None,
        on_step: Callable[[int], Answer] = lambda step: None,
        threads: int = 1,
    ) -> Attempt:
        """One attempt. ``on_step`` gets the number of looks for a stop request, one after each optimizer step, from 1."""
        folder.mkdir(exist_ok=True)
        address = str(self._folder / "trainer.sock")
        with Listener(address, "AF_UNIX") as listener:
            request = {"spec": spec, "folder": str(folder), "address": address, "threads": threads}
            self._control.send_bytes(json.dumps(request).encode())
            pid = int(self._control.recv_bytes())
            with listener.accept() as connection:
                events, steps = _follow(connection, pid, on_event, on_step)
            exit_code = int(self._control.recv_bytes())
        return Attempt(events, steps, exit_code)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


def _follow(
    connection: Connection, pid: int, on_event: Callable[[Event], Answer], on_step: Callable[[int], Answer]
) -> tuple[list[Event], int]:
    events: list[Event] = []
    steps = 0
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return events, steps
        if message == b"stop?":
            steps += 1
            answer = on_step(steps)
        else:
            events.append(decode_event(message))
            answer = on_event(events[-1])
        if isinstance(answer, signal.Signals):
            os.kill(pid, answer)
            return events, steps
        connection.send_bytes(encode(answer) if answer else b"")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@dataclass
class Outcome:
    """What two runs of one spec must have in common."""

    student: bytes
    report: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "Outcome":
        report = json.loads((folder / "result" / "report.json").read_text())
        del report["created_at"], report["compression"], report["verdict"]  # which says how much faster the student is
        for role in ("teacher", "student", "control"):
            if report[role] is not None:
                del (
                    report[role]["latency_ms"],
                    report[role]["speed"],
                    report[role]["training"]["seconds"],
                    report[role]["training"]["samples_per_second"],
                )
        return cls((folder / "result" / "student" / "model.safetensors").read_bytes(), report)


@dataclass
class Undisturbed:
    """A run that nothing happened to."""

    outcome: Outcome
    attempt: Attempt

    def points(self) -> dict[tuple[str, int], float]:
        return all_points([self.attempt])


def all_points(attempts: list[Attempt]) -> dict[tuple[str, int], float]:
    """Every metric point by name and step; one that is sent twice must be the same."""
    points: dict[tuple[str, int], float] = {}
    for attempt in attempts:
        for event in attempt.events:
            for name, values in getattr(event, "points", {}).items():
                for step, value in values:
                    assert points.setdefault((name, step), value) == value
    return points


@pytest.fixture(scope="module")
def digits(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("digits")
    attempt = host.run(DIGITS, folder)
    assert isinstance(attempt.last, Finished)
    return Undisturbed(Outcome.of(folder), attempt)


def teacher_steps(run: Undisturbed) -> int:
    steps: list[int] = [event.step for event in run.attempt.of(Progress) if event.phase == "teacher"]
    return max(steps)


def assert_same(folder: Path, attempts: list[Attempt], run: Undisturbed) -> None:
    assert isinstance(attempts[-1].last, Finished)
    outcome = Outcome.of(folder)
    assert outcome.student == run.outcome.student
    assert outcome.report == run.outcome.report
    assert all_points(attempts) == run.points()


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(5, id="before the first checkpoint"),
        pytest.param(16, id="in the teacher's second epoch"),
        pytest.param(-2, id="near the teacher's end"),
    ],
)
def test_killed_while_the_teacher_trains(host: Host, digits: Undisturbed, tmp_path: Path, step: int) -> None:
    at = step if step > 0 else teacher_steps(digits) + step
    killed = host.run(DIGITS, tmp_path, on_step=lambda number: signal.SIGKILL if number == at else None)
    assert killed.exit_code == -signal.SIGKILL
    resumed = host.run(DIGITS, tmp_path)

    assert_same(tmp_path, [killed, resumed], digits)


@pytest.mark.parametrize("phase", ["student", "control"])
@pytest.mark.parametrize("step", [3, 9])
def test_killed_right_after_a_checkpoint(host: Host, digits: Undisturbed, tmp_path: Path, phase: str, step: int) -> None:
    def on_event(event: Event) -> Answer:
        return signal.SIGKILL if isinstance(event, CheckpointWritten) and (event.phase, event.step) == (phase, step) else None

    killed = host.run(DIGITS, tmp_path, on_event=on_event)
    assert killed.exit_code == -signal.SIGKILL
    resumed = host.run(DIGITS, tmp_path)

    assert_same(tmp_path, [killed, resumed], digits)
    assert "teacher" not in {event.phase for event in resumed.of(PhaseStarted)}


@pytest.mark.parametrize("phase", ["teacher", "student", "control", "evaluation", "export"])
def test_killed_between_phases(host: Host, digits: Undisturbed, tmp_path: Path, phase: str) -> None:
    killed = host.run(
        DIGITS, tmp_path, on_event=lambda e: signal.SIGKILL if isinstance(e, PhaseStarted) and e.phase == phase else None
    )
    assert killed.exit_code == -signal.SIGKILL
    resumed = host.run(DIGITS, tmp_path)

    assert_same(tmp_path, [killed, resumed], digits)


def test_killed_again_and_again(host: Host, digits: Undisturbed, tmp_path: Path) -> None:
    attempts = []
    # Checkpoints come every seven steps of the teacher and every three of the student: each attempt gets a little further.
    for _ in range(30):
        attempts.append(host.run(DIGITS, tmp_path, on_step=lambda number: signal.SIGKILL if number == 11 else None))
        if attempts[-1].exit_code == 0:
            break

    assert len(attempts) > 3
    assert_same(tmp_path, attempts, digits)


@pytest.mark.parametrize("threads", [1, 2])
def test_killed_with_dropout_and_momentum(host: Host, tmp_path: Path, threads: int) -> None:
    whole = host.run(WITH_DROPOUT, tmp_path / "whole", threads=threads)
    run = Undisturbed(Outcome.of(tmp_path / "whole"), whole)
    # 9 steps of the teacher, 10 batches when it is asked, then 6 of the student's 14 steps.
    killed = host.run(
        WITH_DROPOUT, tmp_path / "killed", threads=threads, on_step=lambda number: signal.SIGKILL if number == 6 else None
    )
    killed_again = host.run(
        WITH_DROPOUT,
        tmp_path / "killed",
        threads=threads,
        on_event=lambda e: signal.SIGKILL if isinstance(e, CheckpointWritten) and (e.phase, e.step) == ("student", 8) else None,
    )
    resumed = host.run(WITH_DROPOUT, tmp_path / "killed", threads=threads)

    assert_same(tmp_path / "killed", [killed, killed_again, resumed], run)


@pytest.mark.parametrize("reason", ["pause", "drain", "preempt", "time_limit"])
def test_a_stop_leaves_a_checkpoint_of_that_very_step(host: Host, digits: Undisturbed, tmp_path: Path, reason: Any) -> None:
    stopped = host.run(DIGITS, tmp_path, on_step=lambda number: StopRequest(reason) if number == 5 else None)
    assert stopped.last == Stopped(reason)
    assert stopped.events[-2] == CheckpointWritten("teacher", 5)
    assert not (tmp_path / "result").exists()

    resumed = host.run(DIGITS, tmp_path)
    assert resumed.of(Progress)[0].step == 6
    assert_same(tmp_path, [stopped, resumed], digits)


def test_a_student_that_is_kept_when_its_time_is_over_changes_nothing_of_how_it_goes_on(host: Host, tmp_path: Path) -> None:
    whole = host.run(WITH_DROPOUT, tmp_path / "whole")
    run = Undisturbed(Outcome.of(tmp_path / "whole"), whole)
    stopped = host.run(WITH_DROPOUT, tmp_path / "job", on_step=lambda number: StopRequest("time_limit") if number == 23 else None)
    assert stopped.events[-2] == CheckpointWritten("student", 6)
    assert (tmp_path / "job" / "result" / "student" / "model.safetensors").is_file()
    assert_same(tmp_path / "job", [stopped, host.run(WITH_DROPOUT, tmp_path / "job")], run)


def test_a_stop_between_phases_leaves_a_checkpoint_too(host: Host, digits: Undisturbed, tmp_path: Path) -> None:
    # The looks after the teacher's last step are those while it is asked about the training split.
    first = teacher_steps(digits) + 1
    stopped = host.run(DIGITS, tmp_path, on_step=lambda number: StopRequest("drain") if number == first else None)
    assert stopped.last == Stopped("drain")
    assert isinstance(stopped.events[-2], CheckpointWritten)

    resumed = host.run(DIGITS, tmp_path)
    assert_same(tmp_path, [stopped, resumed], digits)


def test_a_resumed_job_uses_the_threads_that_it_began_with(host: Host, digits: Undisturbed, tmp_path: Path) -> None:
    killed = host.run(DIGITS, tmp_path, on_step=lambda number: signal.SIGKILL if number == 16 else None, threads=1)
    resumed = host.run(DIGITS, tmp_path, threads=2)

    assert_same(tmp_path, [killed, resumed], digits)


def test_a_damaged_checkpoint_is_never_trained_from(host: Host, digits: Undisturbed, tmp_path: Path) -> None:
    killed = host.run(DIGITS, tmp_path, on_step=lambda number: signal.SIGKILL if number == 30 else None)
    path = tmp_path / CHECKPOINT_FILE
    content = bytearray(path.read_bytes())
    content[-100] ^= 64
    path.write_bytes(content)
    again = host.run(DIGITS, tmp_path)

    assert again.of(Progress)[0].step == 1
    assert_same(tmp_path, [killed, again], digits)


def test_another_specs_checkpoint_is_never_trained_from(host: Host, digits: Undisturbed, tmp_path: Path) -> None:
    other = DIGITS | {"training": DIGITS["training"] | {"seed": 1}}
    host.run(other, tmp_path, on_step=lambda number: signal.SIGKILL if number == 16 else None)
    run = host.run(DIGITS, tmp_path)

    assert run.of(Progress)[0].step == 1
    assert Outcome.of(tmp_path).student == digits.outcome.student


def test_a_renamed_job_goes_on_from_its_checkpoint(host: Host, digits: Undisturbed, tmp_path: Path) -> None:
    host.run(DIGITS, tmp_path, on_step=lambda number: signal.SIGKILL if number == 16 else None)
    run = host.run(DIGITS | {"name": "renamed", "labels": {"a": "b"}, "priority": "low"}, tmp_path)

    assert run.of(Progress)[0].step == 15
    assert Outcome.of(tmp_path).student == digits.outcome.student


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_cancelled_job_keeps_its_student(host: Host, digits: Undisturbed, tmp_path: Path, keep: Any) -> None:
    checkpoints: list[int] = []

    def on_event(event: Event) -> Answer:
        if isinstance(event, CheckpointWritten) and event.phase == "student":
            checkpoints.append(event.step)
        return None

    def on_step(number: int) -> Answer:
        return StopRequest("cancel", keep) if len(checkpoints) == 2 else None

    stopped = host.run(DIGITS, tmp_path, on_event=on_event, on_step=on_step)

    assert stopped.last == Stopped("cancel")
    assert len(load_network(tmp_path / "result" / "student").classes) == 10
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"student", "spec.json"}


@pytest.mark.parametrize(("keep", "step"), [("none", 60), ("last", 5)])
def test_a_cancel_keeps_nothing_unasked_or_before_there_is_a_student(
    host: Host, digits: Undisturbed, tmp_path: Path, keep: Any, step: int
) -> None:
    stopped = host.run(DIGITS, tmp_path, on_step=lambda number: StopRequest("cancel", keep) if number == step else None)

    assert stopped.last == Stopped("cancel")
    assert not (tmp_path / "result").exists()


def test_a_trainer_whose_supervisor_is_gone_ends(host: Host, tmp_path: Path) -> None:
    def hang_up(event: Event) -> Answer:
        raise EOFError

    with pytest.raises(EOFError):
        host.run(DIGITS, tmp_path, on_event=hang_up)
    # The host answers for the next one only when it has reaped that one.
    host._control.recv_bytes()

    assert not isinstance(host.run(DIGITS, tmp_path, on_step=lambda number: StopRequest("pause")).last, Failed)
