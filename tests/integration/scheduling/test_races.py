"""Everybody at once, on threads of their own: nothing is held twice, nothing is lost, nothing goes round in a circle."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from threading import Barrier, Event
from typing import Any

from sqlalchemy import func, select

from service.errors import CircularDependency, InvalidSpec, InvalidTransition
from service.lifecycle import Status, may_move
from service.tables import Job
from tests.integration.scheduling.cluster import Cluster, Machine

STEPS = 40
OF_EVENTS = {"job.host_kept", "job.stop_requested", "job.edited", "job.promoted", "job.stop_withdrawn"}
"""Those that are no move."""


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """All begin at the same moment; what they return, or the first error."""
    barrier = Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


def work(cluster: Cluster, machine: Machine, seed: int) -> None:
    """A worker claims, and ends what it runs in one way or another."""
    generator = random.Random(seed)
    for _ in range(STEPS):
        found = cluster.do(cluster.claim_in, machine)
        if found is not None:
            machine.running[found.job.id] = (found.fence, found.devices)
        if machine.running and (found is None or generator.random() < 0.4):
            finish(cluster, machine, generator)


def finish(cluster: Cluster, machine: Machine, generator: random.Random) -> None:
    job_id = generator.choice(sorted(machine.running))
    stop = cluster.job(job_id).stop_requested
    if stop is not None:
        cluster.stop(job_id, reason=stop)
    elif generator.random() < 0.2:
        cluster.crash(job_id)
    else:
        cluster.succeed(job_id)


def act(cluster: Cluster, owner: str, seed: int) -> None:
    """A person posts, cancels, pauses, resumes and edits jobs."""
    generator = random.Random(seed)
    own: list[str] = []
    for _ in range(STEPS):
        job_id = generator.choice(own) if own else ""
        try:
            match generator.randrange(8 if own else 1):
                case 0 | 1 | 2:
                    needs: dict[str, Any] = {
                        "gpus": generator.choice([1, 1, 2]),
                        "priority": generator.choice(["low", "normal", "high"]),
                    }
                    others = generator.sample(own, 1) if own and generator.random() < 0.3 else []
                    own.append(cluster.submit(owner, **needs, depends_on=others, max_attempts=9))
                case 3:
                    cluster.cancel(job_id)
                case 4:
                    cluster.pause(job_id)
                case 5:
                    cluster.resume(job_id)
                case 6:
                    cluster.edit(job_id, priority=generator.choice(["low", "normal", "high"]))
                case 7:
                    cluster.edit(job_id, depends_on=generator.sample(own, min(2, len(own))))
        except (InvalidTransition, InvalidSpec, CircularDependency):
            continue  # a job that it named has ended by now, or waits for this one


def sweep(cluster: Cluster) -> None:
    for _ in range(STEPS):
        cluster.sweep()


def watch(cluster: Cluster, over: Event, *, limited: str, most: int) -> int:
    """Looks again and again at who holds what."""
    looks = 0
    while not over.is_set():
        rows = cluster.do(lambda session: session.execute(select(Job).where(Job.status == "running")).scalars().all())
        held = [(job.worker_id, name) for job in rows for name in job.devices or ()]
        assert len(held) == len(set(held))
        assert sum(job.owner_id == f"user_{limited}" for job in rows) <= most
        looks += 1
    return looks


def test_workers_people_and_sweeps_at_once_hold_no_device_twice_and_lose_no_job(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        cluster.host(name, gpus=2)
    cluster.user("ana")
    cluster.user("ben", max_running=2)
    over = Event()

    def all_that_write() -> None:
        people = [partial(act, cluster, "ana" if number % 2 else "ben", number) for number in range(3)]
        hosts = [partial(work, cluster, machine, number) for number, machine in enumerate(cluster.machines.values())]
        try:
            at_once(*people, *hosts, partial(sweep, cluster))
        finally:
            over.set()

    with ThreadPoolExecutor(2) as pool:
        looks, writes = pool.submit(watch, cluster, over, limited="ben", most=2), pool.submit(all_that_write)
        writes.result()
        assert looks.result() > 10

    generator = random.Random(7)
    for job_id in cluster.do(lambda session: list(session.scalars(select(Job.id).where(Job.status == "paused")))):
        cluster.resume(job_id)
    for _ in range(2000):
        cluster.sweep()
        cluster.fill()
        machines = [machine for machine in cluster.machines.values() if machine.running]
        if not machines:
            break
        for machine in machines:
            finish(cluster, machine, generator)
    counts = dict(cluster.do(lambda session: session.execute(select(Job.status, func.count()).group_by(Job.status)).all()))
    assert set(counts) <= {"succeeded", "failed", "cancelled"}, counts
    assert counts["succeeded"] > 10
    for job_id in cluster.do(lambda session: list(session.scalars(select(Job.id)))):
        moves = [type_.removeprefix("job.") for type_ in cluster.types(job_id) if type_ not in OF_EVENTS]
        steps = [(before, after) for before, after in pairwise(moves) if before != after]
        assert all(may_move(Status(before), Status(after)) for before, after in steps), moves


def test_claims_in_two_pools_at_once_keep_one_persons_limit(cluster: Cluster) -> None:
    cluster.user("ana", max_running=3)
    for number in range(4):
        cluster.host(f"here {number}", slots=1)
        cluster.host(f"there {number}", slots=1, pool="there")
    cluster.submit_many(6)
    cluster.submit_many(6, pool="there")
    machines = list(cluster.machines)
    started = at_once(*(partial(cluster.claim, name) for name in machines))
    assert sum(job_id is not None for job_id in started) == 3


def test_a_job_that_ends_while_another_is_told_to_wait_for_it_leaves_that_one_nowhere(cluster: Cluster) -> None:
    cluster.host("a", slots=8)
    for _ in range(8):
        needed = cluster.submit()
        assert cluster.fill() == [needed]
        waiting = cluster.submit()
        at_once(partial(cluster.edit, waiting, depends_on=[needed]), partial(cluster.succeed, needed))
        assert cluster.status(waiting) == ["queued"]
        cluster.cancel(waiting)
