"""A trainer is followed to its end, is asked to stop once, and leaves no process behind."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.host.executor import Ending, LocalExecutor, Trainer, UnsupportedPlacement, follow
from worker.protocol import Assignment, Event, Failed, Finished, HostDevices, Stopped, StopRequest, Warned

DONE = Finished(result={})
FAILED = Failed("trainer_error", "the second rank's")
WARNED = Warned("few_rows", "few rows")
PAUSE, DRAIN, CANCEL = StopRequest("pause"), StopRequest("drain"), StopRequest("cancel", keep="best")


class ScriptedTrainer:
    """Emits the events of one poll after another; ends after the last of them, when killed, or with what a stop makes it emit."""

    pids = (1,)

    def __init__(self, *polls: list[Event], stops_with: Event | None = None) -> None:
        self._polls, self._stops_with = list(polls), stops_with
        self.requests: list[StopRequest] = []
        self.killed = self.reaped = False

    @property
    def ended(self) -> bool:
        return self.killed or not self._polls

    def events(self, *, timeout_seconds: float) -> Iterator[Event]:
        yield from self._polls.pop(0)

    def ask_to_stop(self, request: StopRequest) -> None:
        self.requests.append(request)
        if self._stops_with is not None:
            self._polls = [[self._stops_with]]

    def kill(self) -> None:
        self.killed = True

    def exit_code(self) -> int:
        assert self.ended, "nobody waits for a trainer that runs"
        self.reaped = True
        return -9 if self.killed else 0


def test_every_event_is_passed_on_and_the_last_one_returned() -> None:
    trainer: Trainer = ScriptedTrainer([WARNED], [], [WARNED, DONE])
    events: list[Event] = []
    ending = follow(trainer, on_event=events.append)
    assert events == [WARNED, WARNED, DONE]
    assert ending == Ending(DONE, asked=None, killed=False, exit_code=0)


def test_events_after_the_last_are_dropped() -> None:
    events: list[Event] = []
    ending = follow(ScriptedTrainer([DONE, WARNED], [FAILED]), on_event=events.append)
    assert events == [DONE]
    assert ending.last == DONE


def test_a_trainer_that_ends_without_a_last_event_has_none() -> None:
    trainer = ScriptedTrainer([WARNED], [], [])
    ending = follow(trainer, on_event=lambda event: trainer.kill())
    assert ending == Ending(None, asked=None, killed=False, exit_code=-9)
    assert trainer.reaped


def test_polls_follow_the_events_that_have_arrived() -> None:
    seen: list[str] = []
    follow(
        ScriptedTrainer([WARNED], [], [DONE]), on_event=lambda event: seen.append(event.type), on_poll=lambda: seen.append("poll")
    )
    assert seen == ["warned", "poll", "poll", "finished", "poll"]


def test_a_stop_is_requested_once() -> None:
    trainer = ScriptedTrainer([], [], [], [Stopped("pause")])
    assert follow(trainer, wanted_stop=lambda: PAUSE) == Ending(Stopped("pause"), asked=PAUSE, killed=False, exit_code=0)
    assert trainer.requests == [PAUSE]


@pytest.mark.parametrize(
    ("wanted", "requests"),
    [
        ([PAUSE, CANCEL, CANCEL], [PAUSE, CANCEL]),
        ([None, CANCEL, PAUSE], [CANCEL]),
        ([PAUSE, DRAIN, None], [PAUSE]),
        ([CANCEL, StopRequest("cancel", keep="none"), CANCEL], [CANCEL]),
    ],
)
def test_a_cancel_overrides_an_earlier_request_and_nothing_else_does(
    wanted: list[StopRequest | None], requests: list[StopRequest]
) -> None:
    trainer = ScriptedTrainer([], [], [DONE])
    stops = iter(wanted)
    assert follow(trainer, wanted_stop=lambda: next(stops)).asked == requests[-1]
    assert trainer.requests == requests


def test_one_that_does_not_stop_within_the_grace_is_killed() -> None:
    trainer = ScriptedTrainer(*[[]] * 100_000)
    assert follow(trainer, wanted_stop=lambda: PAUSE, grace_seconds=0.0) == Ending(None, asked=PAUSE, killed=True, exit_code=-9)
    assert trainer.reaped


def test_one_that_stops_within_the_grace_is_not_killed() -> None:
    trainer = ScriptedTrainer([], [], stops_with=Stopped("drain"))
    assert follow(trainer, wanted_stop=lambda: DRAIN, grace_seconds=60.0).last == Stopped("drain")
    assert not trainer.killed


@pytest.mark.parametrize("error", [RuntimeError("no database"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["on_event", "on_poll", "wanted_stop"])
def test_an_error_of_the_follower_kills_the_trainer_and_reaps_it(error: BaseException, where: str) -> None:
    def fail(*_: object) -> None:
        raise error

    trainer = ScriptedTrainer([WARNED], [WARNED])
    with pytest.raises(type(error)):
        follow(trainer, **{where: fail})  # type: ignore[arg-type]
    assert trainer.killed
    assert trainer.reaped


def test_trainers_run_on_their_own_host_alone(tmp_path: Path) -> None:
    placement = (HostDevices("left", ("cuda:0", "cuda:1")), HostDevices("right", ("cuda:0",)))
    assignment = Assignment("job_1", {}, tmp_path, placement=placement)
    assert assignment.devices == ("cuda:0", "cuda:1", "cuda:0")
    with pytest.raises(UnsupportedPlacement, match=r"job_1 is placed on right; trainers run on one host, here on left"):
        LocalExecutor("left").start(assignment)


def test_every_trainer_is_started_by_an_executor_and_followed_by_the_one_loop() -> None:
    root = Path(__file__).parents[4]
    sources = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in (root / "worker").rglob("*.py")}
    naming = {
        name: {path for path, text in sources.items() if re.search(pattern, text)}
        for name, pattern in {
            "the process": r"TrainerProcess\(",
            "what it runs": r"from worker\.job\.attempt import",
            "the loop": r"\bfollow\(",
        }.items()
    }
    assert naming == {
        "the process": {"worker/host/executor.py"},
        "what it runs": {"worker/host/trainer_process.py"},
        "the loop": {
            "worker/host/executor.py",
            "worker/host/miniature.py",
            "worker/host/supervisor.py",
            "worker/standalone.py",
        },
    }
