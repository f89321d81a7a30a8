"""What happens between two steps: one decision of rank 0 for all ranks, to stop or to write a checkpoint."""

import json

import pytest

from service.spec.training import TrainingSpec
from tests.unit.worker.training.test_loop import make_training
from worker.distributed.ranks import SingleProcess, T
from worker.errors import StopAsked
from worker.protocol import Event, StopRequest
from worker.training.callbacks import TrainingReporter
from worker.training.loop import Training, train


class Listener:
    """Keeps the events, and asks for a stop after so many steps."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.events: list[Event] = []
        self._left = stop_after

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def stop_request(self) -> StopRequest | None:
        if self._left is None:
            return None
        self._left -= 1
        return StopRequest("cancel", keep="best") if self._left == 0 else None


class Rank(SingleProcess):
    """Counts rank 0's messages; with ``decides``, they are those of another rank."""

    def __init__(self, *, decides: object = None) -> None:
        self.num_messages, self._decides = 0, decides

    def broadcast_from_rank0(self, value: T) -> T:
        self.num_messages += 1
        received: T = json.loads(json.dumps(value if self._decides is None else self._decides))
        return received


def reported(training: Training, listener: Listener, group: Rank) -> list[int]:
    """Trains, and returns the steps after which a checkpoint was written."""
    written: list[int] = []
    callback = TrainingReporter(listener, write_checkpoint=lambda: written.append(training.step), group=group)
    train(training, callback)
    return written


def test_a_step_takes_one_message_whatever_is_decided() -> None:
    training, group = make_training(TrainingSpec(max_steps=7, batch_size=8, checkpoint_steps=3)), Rank()
    assert reported(training, Listener(), group) == [3, 6]
    assert group.num_messages == 7


def test_no_checkpoint_is_written_after_the_last_step() -> None:
    training = make_training(TrainingSpec(max_steps=6, batch_size=8, checkpoint_steps=3))
    assert reported(training, Listener(), Rank()) == [3]


def test_a_requested_stop_ends_the_training_after_its_step_with_all_its_points() -> None:
    training, listener = make_training(TrainingSpec(max_steps=7, batch_size=8)), Listener(stop_after=2)
    with pytest.raises(StopAsked) as stopped:
        reported(training, listener, Rank())
    assert stopped.value.request == StopRequest("cancel", keep="best")
    assert training.step == 2
    assert training.take_points() == {}


def test_another_rank_acts_as_rank_0_decides_and_not_on_its_own_request() -> None:
    training, listener = make_training(TrainingSpec(max_steps=3, batch_size=8)), Listener(stop_after=1)
    assert reported(training, listener, Rank(decides=(None, True))) == [1, 2, 3]
