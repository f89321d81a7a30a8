"""Display of a job's progress: a bar for each phase in a terminal, else a line from time to time.

The same view shows a job that is watched over HTTP and a training in this process.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_BAR_WIDTH = 18
_LINE_SECONDS = 1.0
"""The least time between two plain lines, except for the first and the last of a phase."""
_SCORES = {"accuracy": ".2%", "score": ".4f", "agreement": ".4f"}
"""How each is written: of them an accuracy alone is a share in every task."""


@dataclass
class Phase:
    """The last known state of a phase."""

    name: str
    message: str = ""
    step: int = 0
    total_steps: int = 0
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    score: str = ""
    """What the last evaluation on the validation split gave, with its name."""
    done: bool = False

    def figures(self) -> dict[str, str]:
        """The known ones of steps, speed, remaining time and score, formatted."""
        known = {
            "steps": f"{self.step}/{self.total_steps}" if self.total_steps else "",
            "samples/s": f"{self.samples_per_second:,.0f}" if self.samples_per_second else "",
            "left": _duration(self.eta_seconds) if self.eta_seconds is not None and not self.done else "",
            "validation": self.score,
        }
        return {name: figure for name, figure in known.items() if figure}


class ProgressView:
    """Displays phases as they begin, advance and end. A context manager; :meth:`finish` marks the remaining ones as done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[str, Phase] = {}
        self._status = ""
        self._lively = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=False)
        self._spinner = Spinner("dots")
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._lively:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._status = ""
        if self._lively:
            self._live.stop()

    def status(self, text: str) -> None:
        """Sets the status line, which is shown while no phase runs; empty for none."""
        if text != self._status:
            self._status = text
            if text and not self._lively:
                self._line(text)

    def say(self, text: str) -> None:
        """Prints one line above the bars."""
        self._console.print(text, markup=False)

    def begin(self, name: str, message: str = "") -> None:
        """Begins a phase and ends the earlier ones."""
        self._status = ""
        for earlier in self._phases.values():
            if earlier.name != name:
                self._end(earlier)
        if name not in self._phases:
            self._phases[name] = Phase(name)
            if not self._lively and not message:
                self._line(name)
        phase = self._phases[name]
        if message and message != phase.message:
            phase.message = message
            if not self._lively:
                self._line(f"{name}: {message}")

    def advance(
        self, name: str, *, step: int, total_steps: int, samples_per_second: float | None = None, eta_seconds: float | None = None
    ) -> None:
        """Updates the progress of a phase."""
        if name not in self._phases or self._phases[name].done:
            self.begin(name)
        phase = self._phases[name]
        phase.done = False
        phase.step, phase.total_steps = step, total_steps
        phase.samples_per_second, phase.eta_seconds = samples_per_second, eta_seconds
        if not self._lively and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._phase_line(phase)

    def measure(self, points: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Takes metric points and shows accuracies, scores and agreements on the validation split beside their phase."""
        for name, series in points.items():
            phase, _, metric = name.partition("/")
            score = metric.removeprefix("validation_")
            if metric != score and score in _SCORES and phase in self._phases and series:
                self._phases[phase].score = f"{score} {series[-1][1]:{_SCORES[score]}}"

    def finish(self) -> None:
        """Ends all phases."""
        for phase in self._phases.values():
            self._end(phase)

    def _end(self, phase: Phase) -> None:
        if not phase.done:
            phase.done, phase.step = True, phase.total_steps
            if not self._lively and phase.total_steps:
                self._phase_line(phase)

    def _phase_line(self, phase: Phase) -> None:
        self._line("  ".join([phase.name, *(f"{name} {figure}" for name, figure in phase.figures().items())]))

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self.say(text)

    def _render(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        columns = ("steps", "samples/s", "left", "validation")
        for column in ("", "", ""):
            table.add_column(column, no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True, overflow="ellipsis")
        for phase in self._phases.values():
            figures = phase.figures()
            done = Text("✓", style="green") if phase.done else self._spinner
            table.add_row(done, phase.name, _bar(phase), *(Text(figures.get(column, ""), style="cyan") for column in columns))
        shown: list[RenderableType] = [table] if self._phases else []
        if self._status:
            shown.append(Spinner("dots", text=Text(self._status)))
        shown += [Text(phase.message, style="dim") for phase in self._phases.values() if phase.message and not phase.done]
        return Group(*shown)


def _bar(phase: Phase) -> ProgressBar:
    if phase.total_steps:
        return ProgressBar(total=phase.total_steps, completed=phase.step, width=_BAR_WIDTH)
    return ProgressBar(total=1, completed=int(phase.done), width=_BAR_WIDTH)


def show_event(view: ProgressView, event: Any) -> None:
    """Displays an event of ``worker.protocol``; ignores those without progress."""
    match event.type:
        case "phase_started":
            view.begin(event.phase, event.message)
        case "progress":
            view.advance(
                event.phase,
                step=event.step,
                total_steps=event.total_steps,
                samples_per_second=event.samples_per_second,
                eta_seconds=event.eta_seconds,
            )
        case "metric_points":
            view.measure(event.points)
        case "warned":
            view.say(f"warning: {event.message}")
        case "finished":
            view.finish()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes}:{rest:02} min"
