"""Progress in a terminal and without one."""

import io

import pytest
from rich.console import Console

from service.cli.progress import ProgressView, show_event
from worker.protocol import Event, Finished, MetricPoints, PhaseStarted, Progress

RUN: list[Event] = [
    PhaseStarted(phase="teacher", message="training the teacher: 4 epochs on 1,149 images"),
    Progress(phase="teacher", step=0, total_steps=72, epoch=1, samples_per_second=None, eta_seconds=None),
    Progress(phase="teacher", step=40, total_steps=72, epoch=3, samples_per_second=5120.0, eta_seconds=61.4),
    MetricPoints(points={"teacher/train_loss": [(36, 0.21)], "teacher/validation_accuracy": [(36, 0.93125)]}),
    PhaseStarted(phase="student", message="training the student"),
    Progress(phase="student", step=72, total_steps=72, epoch=4, samples_per_second=9000.0, eta_seconds=0.0),
    PhaseStarted(phase="export", message="writing the student"),
    Finished(result={}),
]


def shown(*, terminal: bool, events: list[Event] = RUN) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=160, color_system=None, _environ={"TERM": "xterm"})
    with ProgressView(console) as view:
        for event in events:
            show_event(view, event)
    return output.getvalue()


def test_without_a_terminal_each_phase_says_what_it_does_and_how_it_ended() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "teacher: training the teacher: 4 epochs on 1,149 images"
    assert "teacher  steps 72/72  samples/s 5,120  validation accuracy 93.12%" in lines
    assert "student  steps 72/72  samples/s 9,000" in lines
    assert lines[-1] == "export: writing the student"


@pytest.mark.parametrize(("name", "figure"), [("score", "score 0.8125"), ("agreement", "agreement 0.8125")])
def test_what_is_no_accuracy_is_not_called_one(name: str, figure: str) -> None:
    points = MetricPoints(points={"teacher/validation_loss": [(36, 0.5)], f"teacher/validation_{name}": [(36, 0.8125)]})
    lines = shown(terminal=False, events=[each if not isinstance(each, MetricPoints) else points for each in RUN]).splitlines()
    assert f"teacher  steps 72/72  samples/s 5,120  validation {figure}" in lines


def test_without_a_terminal_a_long_phase_fills_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Event] = [
        Progress(phase="student", step=step, total_steps=10_000, epoch=1, samples_per_second=1.0, eta_seconds=1.0)
        for step in range(10_000)
    ]
    assert len(shown(terminal=False, events=steps).splitlines()) < 100


def test_a_terminal_shows_every_phase_at_once() -> None:
    last_picture = shown(terminal=True).split("\x1b[1A")[-1]
    screen = shown(terminal=True)
    assert "✓" in last_picture
    assert all(phase in screen for phase in ("teacher", "student", "export"))
    assert "93.12%" in screen
    assert "\x1b[?25h" in screen, "the cursor is given back"


def test_brackets_in_a_message_are_text_and_no_markup() -> None:
    output = io.StringIO()
    with ProgressView(Console(file=output)) as view:
        view.say("shape [bold] is [1, 8, 8]")
    assert output.getvalue() == "shape [bold] is [1, 8, 8]\n"
