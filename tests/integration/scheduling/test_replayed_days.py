"""Two days of a simulated team on two hosts, replayed through the real claim on a clock that jumps: the effects of the policy.

At many moments all explanations of waiting jobs are compared with what the claim then does, and with the devices.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from benchmarks.made_up_team import DAY, HOUR, Person, Posted, posts, team
from benchmarks.queue_policy import owners, used, waits
from benchmarks.simulated_cluster import EVERYBODY, LEASE_SECONDS, Cluster, Run, first_in_first_out
from service.queue_policy import QueuePolicy
from service.scheduling import Device, Offer, claim
from service.scheduling.blockers import Blocker
from service.scheduling.explain import QueueStatus, explain
from service.tables import Job, Worker
from tests.integration.conftest import on_database

HOSTS = (8, 4)
DAYS = 2.0
PEOPLE = team(8)
POSTED = posts(PEOPLE, days=DAYS, gpus=sum(HOSTS), load=0.85, seed=6)
EVERY = 16
"""Moments between two checks of all explanations."""


class Explanations:
    """Compares explanations of waiting jobs with the claim and the devices."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.moments = 0
        self.reasons: Counter[str] = Counter()

    def check(self) -> None:
        self.moments += 1
        if self.moments % EVERY:
            return
        with self.cluster.database.transaction() as session:
            told = explain(session, "default", lease_seconds=LEASE_SECONDS)
        if not told.places:
            return
        assert [job_id for job_id, _ in self._claims(every_device_free=True)] == list(told.places), "the queue order"
        starts = dict(self._claims())
        assert {id_: place.blocker.worker_id for id_, place in told.places.items() if place.blocker.reason == "starting"} == {
            id_: offer.worker_id for id_, offer in starts.items()
        }
        free = {worker_id: set(self.cluster.free(worker_id)) for worker_id in self.cluster.hosts}
        for offer in starts.values():
            free[offer.worker_id] -= {device.name for device in offer.devices}
        for job_id, place in told.places.items():
            self.reasons[place.blocker.reason] += 1
            if place.blocker.reason != "starting":
                fits_on = [worker for worker, names in free.items() if len(names) >= self._gpus(job_id)]
                self._check_blocked(job_id, place.blocker, told, fits_on)

    def _check_blocked(self, job_id: str, blocker: Blocker, told: QueueStatus, fits_on: list[str]) -> None:
        positions = {id_: place.position for id_, place in told.places.items()}
        if blocker.reason == "kept_host":
            assert blocker.worker_id in fits_on
            (holder,) = blocker.job_ids
            assert holder in positions
            assert job_id not in dict(self._claims())
            assert self._starts_without(holder, job_id), "it starts without the reservation"
            return
        assert fits_on == [], "it waits for devices, and they are there"
        if blocker.reason == "jobs_ahead":
            assert blocker.job_ids
            assert all(positions[id_] < positions[job_id] for id_ in blocker.job_ids)
            assert "starting" not in {told.places[id_].blocker.reason for id_ in blocker.job_ids}
            return
        assert blocker.reason in {"devices", "preempting"}
        assert blocker.worker_id is not None
        on_it = {fence.job_id for fence, held in self.cluster.running.items() if held.worker_id == blocker.worker_id}
        assert set(blocker.job_ids) - {id_ for id_, p in told.places.items() if p.blocker.reason == "starting"} <= on_it
        if blocker.reason == "preempting":
            stopping = {fence.job_id for fence, held in self.cluster.running.items() if held.stopping}
            assert set(blocker.job_ids) <= stopping

    def _claims(self, *, every_device_free: bool = False) -> list[tuple[str, Offer]]:
        """The jobs that the hosts would claim, in the order of their ids; or one host that has room for all."""
        with self.cluster.database.transaction() as session:
            if every_device_free:
                names = [f"cuda:{n}" for n in range(sum(session.scalars(_WAITING_GPUS)))]
                offers = [Offer(_giant(session, names), "default", tuple(Device(name, 80.0) for name in names))]
            else:
                offers = [self.cluster.offer(worker_id) for worker_id in self.cluster.hosts]
            found = [each for offer in offers for each in _all(session, offer)]
            session.rollback()
        return found

    def _starts_without(self, holder: str, job_id: str) -> bool:
        """Whether it would start without the job that has the reservation, and without all others that wait."""
        with self.cluster.database.transaction() as session:
            starts = [each for worker_id in self.cluster.hosts for each in _all(session, self.cluster.offer(worker_id))]
            taken = {name for _, offer in starts for name in {(offer.worker_id, device.name) for device in offer.devices}}
            others = update(Job).where(Job.status == "queued", Job.id != job_id)
            session.execute(others.values(status="paused", waiting_since=None, reserved_worker_id=None))
            left = [
                Offer(w, "default", tuple(Device(n, 80.0) for n in self.cluster.free(w) if (w, n) not in taken))
                for w in self.cluster.hosts
            ]
            found = [id_ for offer in left for id_, _ in _all(session, offer)]
            session.rollback()
        return found == [job_id]

    def _gpus(self, job_id: str) -> int:
        return self.cluster.runs[job_id].posted.gpus


_WAITING_GPUS = select(Job.gpus).where(Job.status == "queued")


def _all(session: Session, offer: Offer) -> Iterator[tuple[str, Offer]]:
    """Yields the jobs that a host claims until nothing fits, each with its devices."""
    devices = offer.devices
    while (found := claim(session, Offer(offer.worker_id, "default", devices), lease_seconds=LEASE_SECONDS)) is not None:
        taken = tuple(device for device in devices if device.name in found.devices)
        devices = tuple(device for device in devices if device not in taken)
        yield found.job.id, Offer(offer.worker_id, "default", taken)


def _giant(session: Session, names: Sequence[str]) -> str:
    devices = [{"name": name, "kind": "cuda", "memory_gib": 80.0} for name in names]
    session.add(Worker(id="worker_giant", host="giant", pid=1, pool="default", slots=1, devices=devices))
    session.flush()
    return "worker_giant"


@contextmanager
def replayed(
    postgres_url: str, template: str, posted: Sequence[Posted], *, explained: bool, people: Sequence[Person] = PEOPLE
) -> Iterator[tuple[list[Run], Counter[str]]]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        url = on_database(postgres_url, name)
        cluster = Cluster(url, HOSTS, [*people, EVERYBODY], queue_policy=QueuePolicy(), sweep_seconds=1800)
        with closing(cluster.database):
            explanations = Explanations(cluster)
            runs = cluster.replay(posted, at_moment=explanations.check if explained else lambda: None)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        yield runs, explanations.reasons


@pytest.fixture(scope="module")
def shared(postgres_url: str, template_database: str) -> Iterator[tuple[list[Run], Counter[str]]]:
    """The days under the fair share, with the number of times that each reason was given."""
    with replayed(postgres_url, template_database, POSTED, explained=True) as found:
        yield found


@pytest.fixture(scope="module")
def by_arrival(postgres_url: str, template_database: str) -> Iterator[list[Run]]:
    """The same days in the order of arrival."""
    with replayed(postgres_url, template_database, first_in_first_out(POSTED), explained=False) as (runs, _):
        yield owners(runs, POSTED)


Shared = tuple[list[Run], Counter[str]]


def test_every_explanation_is_what_the_claim_then_does(shared: Shared) -> None:
    _, reasons = shared
    assert {"starting", "devices", "jobs_ahead", "kept_host"} <= set(reasons)
    assert reasons.total() > 200


def test_every_job_is_done_and_only_one_of_low_priority_waits_for_a_day_until_it_rises(shared: Shared) -> None:
    runs, _ = shared
    assert len(runs) == len(POSTED)
    assert max(run.wait for run in runs if run.posted.priority != "low") < DAY
    assert max(run.wait for run in runs) < 1.5 * DAY


def test_who_asks_for_little_waits_less_than_in_the_order_of_arrival(shared: Shared, by_arrival: list[Run]) -> None:
    light, before = waits(shared[0], kind="light"), waits(by_arrival, kind="light")
    assert light[len(light) // 2] < before[len(before) // 2] / 2
    assert light[len(light) * 9 // 10] < before[len(before) * 9 // 10]


def test_of_what_people_post_at_one_moment_each_uses_by_weight(postgres_url: str, template_database: str) -> None:
    """In the order of arrival each would have a third."""
    busy = [replace(person, weight=weight) for person, weight in zip(PEOPLE, (1.0, 2.0, 3.0), strict=False)]
    posted = [
        Posted(number, person, 0.0, gpus=1 + number // 3 % 2, seconds=600.0 * (1 + number // 3 % 3), max_seconds=HOUR)
        for number, person in enumerate(busy * 24)
    ]
    with replayed(postgres_url, template_database, posted, explained=False, people=busy) as (runs, _):
        got = used(runs, 1.5 * HOUR)
    total = sum(got.values())
    assert [got[person.name] / total for person in busy] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.08)


def test_fairness_costs_no_use_of_the_devices(shared: Shared, by_arrival: list[Run]) -> None:
    held, before = (sum(used(runs, DAYS * DAY).values()) for runs in (shared[0], by_arrival))
    assert held > before * 0.97
