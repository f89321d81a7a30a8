"""The policy simulated on a snapshot without a database: a draw of the forecast ends, and a copied flow reads on."""

from datetime import UTC, datetime, timedelta

import pytest

from service.queue_policy import QueuePolicy
from service.scheduling import forecast
from service.scheduling.forecast import History
from service.scheduling.hosts import Device, Host, Need
from service.scheduling.policy import Flow, Share, Snapshot, Waiting

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_draw_ends_after_its_thousandth_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MAX_STARTS", 10)
    queue = [waiting(number) for number in range(40)]
    snapshot = one_slot(queue)
    past = History(by_size={(0, 1): [60.0]})
    simulated, starting = snapshot.simulate()
    found = forecast.starts(simulated, starting, [queue[9]], past)
    assert found[queue[9].id].p50 == NOW + timedelta(minutes=9)
    assert forecast.starts(simulated, starting, [queue[10]], past) == {}


def waiting(number: int) -> Waiting:
    at = NOW - timedelta(seconds=100 - number)
    return Waiting(f"job_{number:02}", "user_ana", 1, 1, at, at, Need(), "cpu:1", bound_seconds=3600.0)


def one_slot(queue: list[Waiting]) -> Snapshot:
    flow = Flow(queue[0].flow, queue[0].need, list(queue))
    host = Host("worker_1", "here", (Device("cpu:0"),))
    return Snapshot("default", NOW, QueuePolicy(), {"user_ana": Share("user_ana", "ana")}, {flow.key: flow}, [], lambda: [host])


def test_the_last_known_job_of_a_flow_that_starts_in_a_simulation_does_not_wait_again() -> None:
    queue = [waiting(number) for number in range(6)]
    flow = Flow(queue[0].flow, queue[0].need, queue[:3], extend=lambda flow: flow.add(queue[len(flow.jobs) :]))
    copied = flow.copy()
    copied.jobs.remove(queue[2])
    copied.extend(copied)
    assert copied.jobs == [*queue[:2], *queue[3:]]
    assert flow.jobs == queue, "what the copy reads, the flow itself has too"
    copied.extend(copied)
    assert copied.jobs == [*queue[:2], *queue[3:]]
