"""What is written most: new jobs, over HTTP; metric points and renewals of leases, by many supervisors."""

import json
import multiprocessing
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from benchmarks.control_plane.measuring import CONNECTIONS, Rate, cpu_seconds, measure, request
from benchmarks.control_plane.servers import Service
from benchmarks.large_queue import SPEC
from service import jobs
from service.clock import now_sql, seconds_sql
from service.database import Database
from service.jobs import Fence
from service.notifications import Notifier
from service.tables import Job, JobEvent, MetricPoint

SUPERVISORS = 50
POINTS_A_SECOND = 400
"""Of each supervisor, in one write a second."""
RENEWALS_A_SECOND = 2
_METRICS = ("student/train_loss", "student/learning_rate", "student/val_loss", "student/samples_per_second")
_LEASE_SECONDS = 600.0


@dataclass(frozen=True)
class _Supervised:
    """What supervisors did in one measure."""

    renewals: list[float]
    """Seconds that each took, its commit included."""
    num_points: int
    cpu_seconds: float


def submissions(service: Service, *, seconds: float) -> dict[str, Rate]:
    """Submissions of one spec. Raises RuntimeError unless every job that was answered is stored, with its event."""
    headers = service.authorization | {"Content-Type": "application/json"}
    before = _count(service, Job), _count(service, JobEvent)
    sent = [request("POST", "/v1/jobs", headers, json.dumps(SPEC | {"resources": {"gpus": 1}}))] * CONNECTIONS
    rate = measure(service.port, sent, expect=201, servers=service.processes, seconds=seconds)
    stored = _count(service, Job) - before[0], _count(service, JobEvent) - before[1]
    if stored != (rate.answers, rate.answers):
        raise RuntimeError(f"{rate.answers} submissions were answered, and jobs and events are {stored}")
    return {"submit": rate}


def supervisors(service: Service, *, seconds: float) -> dict[str, Rate]:
    """Renewals of leases by 50 supervisors, a process each, while nothing else is written and while each writes its points.

    The times of the points' row are those of the renewals meanwhile. Raises RuntimeError unless every point is stored.
    """
    with service.database.transaction() as session:
        lasting = now_sql(session) + seconds_sql(_LEASE_SECONDS)
        running = update(Job).where(Job.status == "running").values(lease_expires_at=lasting).returning(Job.id, Job.attempt)
        fences = [Fence(*row) for row in session.execute(running)][:SUPERVISORS]
    rates = {}
    for name, points in (("renewals", 0), ("points, with renewals", POINTS_A_SECOND)):
        stored = _count(service, MetricPoint)
        before = cpu_seconds(service.processes["PostgreSQL"])
        found = _supervise(service, fences, points_a_second=points, seconds=seconds)
        stored = _count(service, MetricPoint) - stored
        if stored != found.num_points:
            raise RuntimeError(f"{found.num_points} points were written, and {stored} are stored")
        done = found.num_points or len(found.renewals)
        database = cpu_seconds(service.processes["PostgreSQL"]) - before
        cpu = {"supervisors": found.cpu_seconds / done * 1e6, "PostgreSQL": database / done * 1e6}
        rates[name] = Rate.of(done, seconds, found.renewals, cpu)
    return rates


def _supervise(service: Service, fences: list[Fence], *, points_a_second: int, seconds: float) -> _Supervised:
    processes = multiprocessing.get_context("fork")
    ready = processes.Barrier(len(fences))
    answers = []
    for index, fence in enumerate(fences):
        ours, theirs = processes.Pipe(duplex=False)
        work = (service.database_url, service.redis_url, fence, index / len(fences), points_a_second, seconds, ready, theirs)
        processes.Process(target=_supervisor, args=work).start()
        theirs.close()
        answers.append(ours)
    found: list[_Supervised] = [each.recv() for each in answers]
    return _Supervised(
        [time for each in found for time in each.renewals],
        sum(each.num_points for each in found),
        sum(each.cpu_seconds for each in found),
    )


def _supervisor(
    database_url: str,
    redis_url: str,
    fence: Fence,
    delay: float,
    points_a_second: int,
    seconds: float,
    ready: Barrier,
    answer: Connection,
) -> None:
    """Once a second a write as of a :class:`worker.host.recorder.Recorder`; the lease on a thread of its own."""
    with closing(Notifier(redis_url)) as notifier, closing(Database(database_url, notify=notifier, pool_size=2)) as database:
        for _ in range(2):  # the first compiles the statements
            database.run(lambda session: jobs.renew_lease(session, fence, lease_seconds=_LEASE_SECONDS))
            database.run(partial(_write, fence=fence, step=0, points={}))
        ready.wait()
        began, spent = time.perf_counter() + delay, time.process_time()
        renewals: list[float] = []

        def renew() -> None:
            for beat in range(int(seconds * RENEWALS_A_SECOND)):
                _sleep_until(began + beat / RENEWALS_A_SECOND)
                asked = time.perf_counter()
                held = database.run(lambda session: jobs.renew_lease(session, fence, lease_seconds=_LEASE_SECONDS))
                assert held is not None, "nobody else runs these jobs"
                renewals.append(time.perf_counter() - asked)

        heart = threading.Thread(target=renew)
        heart.start()
        num_points = 0
        for second in range(int(seconds) if points_a_second else 0):
            _sleep_until(began + second)
            each = points_a_second // len(_METRICS)
            steps = range(second * each, (second + 1) * each)
            points = {name: [(step, 1.0 / (step + 1)) for step in steps] for name in _METRICS}
            num_points += each * len(points)
            database.run(partial(_write, fence=fence, step=steps[-1], points=points))
        heart.join()
        answer.send(_Supervised(renewals, num_points, time.process_time() - spent))


def _write(session: Session, *, fence: Fence, step: int, points: dict[str, list[tuple[int, float]]]) -> None:
    progress = {"phase": "student", "step": step, "total_steps": 100_000, "message": "Training the student"}
    jobs.append_log(session, fence, f"step {step}\n")
    jobs.record_progress(session, fence, progress, milestone=f"step {step}", remaining_seconds=600.0)
    jobs.record_metrics(session, fence, points)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def _count(service: Service, table: type[Job | JobEvent | MetricPoint]) -> int:
    with service.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0
