"""What is promised, checked once it is calm again. Each function yields what is not as promised, in words.

Nothing is lost, doubled or left behind: every job that was answered has ended, once; what it left is whole, and the same as
without faults; nobody was charged for what machines did; no process, device or file of it remains.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import select, text

from service.lifecycle import FINAL, Status
from service.tables import Artifact, Job, JobEvent, Model, Usage, UsageHour
from tests.faults.cluster import CPU_SLOT_CHARGE, Cluster
from tests.faults.people import Ledger, Posted
from tests.faults.story import faults_of, told
from tests.faults.waiting import NeverCame, until

STUDENT = "student/model.safetensors"
_SETTLE_SECONDS = 60.0
_CLOCK_TOLERANCE_SECONDS = 0.05


@dataclass(frozen=True)
class Broken:
    """One thing that is not as promised; ``job_id`` names the job whose event log helps, if it is about one."""

    what: str
    job_id: str | None = None

    def __str__(self) -> str:
        return self.what if self.job_id is None else f"{self.job_id}: {self.what}"


def broken_promises(cluster: Cluster, ledger: Ledger, undisturbed: Mapping[str, str]) -> Iterator[Broken]:
    """Everything that can be checked while the service runs. ``undisturbed`` are SHA-256 of students, by kind of job."""
    yield from (Broken(complaint) for complaint in ledger.complaints)
    kinds = {job_id: posted.kind for posted in ledger.posted for job_id in posted.ids}
    stored = read(cluster)
    yield from _submissions(stored.jobs, ledger.posted)
    for job in stored.jobs:
        for faults in (
            faults_of(job, stored.events[job.id], stored.writers[job.id]),
            _times(job, stored.events[job.id]),
            _result(job, stored, undisturbed.get(kinds.get(job.id, ""))),
            _charge(job),
        ):
            yield from (Broken(fault, job.id) for fault in faults)
    yield from _account(stored)
    yield from _downloads(cluster, stored)
    yield from _stray_files(cluster, stored)
    yield from _nothing_runs(cluster)


def nothing_stays(cluster: Cluster, jobs: Sequence[str]) -> Iterator[Broken]:
    """Deletes every job, those that need others first; of none a file stays."""
    with cluster.client() as client:
        for job_id in sorted(jobs, reverse=True):
            client.delete(job_id)
    left = [path for path in _stored(cluster) if path.startswith("jobs/")]
    if left:
        yield Broken(f"all jobs are deleted, and the store holds {len(left)} of their files: {left[:5]}")


# ---------------------------------------------------------------- nothing lost, nothing doubled


def _submissions(jobs: Sequence[Job], posted: Sequence[Posted]) -> Iterator[Broken]:
    by_key = Counter(job.idempotency_key for job in jobs)
    stored = {job.id for job in jobs}
    for one in posted:
        if len(one.ids) > 1 or by_key[one.key] > 1:
            yield Broken(f"{one.key!r} made the jobs {sorted(one.ids)}, of which {by_key[one.key]} are stored")
        yield from (Broken("it was answered with 201 and is not there", lost) for lost in one.ids - stored)
        if one.seen and one.seen != list(range(1, len(one.seen) + 1)):
            yield Broken(f"its stream brought the events {one.seen}", next(iter(one.ids)))
        if one.ended is not None:
            job = next((job for job in jobs if job.id == one.ended.id), None)
            if job is not None and (job.status, job.result) != (one.ended.status, one.ended.result):
                yield Broken(f"somebody saw it end as {one.ended.status}, and it is {job.status}", job.id)
    wishes = {job_id: one.wish for one in posted for job_id in one.ids}
    for job in jobs:
        if job.status == Status.CANCELLED and wishes.get(job.id) != "cancel":
            yield Broken("nobody cancelled it", job.id)
        if job.status == Status.FAILED and (job.error or {}).get("code") != "dependency_failed":
            yield Broken(f"it failed: {job.error}", job.id)


def _result(job: Job, stored: "Stored", undisturbed: str | None) -> Iterator[str]:
    """Exactly one attempt's result is visible, whole, and the one that it would have had without faults."""
    files = {row.name: row for row in stored.artifacts if row.job_id == job.id}
    results = [row for row in files.values() if row.kind == "result"]
    models = [model for model in stored.models if model.job_id == job.id]
    if job.status == Status.SUCCEEDED:
        if attempts := {row.attempt for row in results} - {job.attempt}:
            yield f"results of the attempts {attempts} are visible, and it ended with attempt {job.attempt}"
        if STUDENT not in files:
            yield "it succeeded without a student"
        elif undisturbed is not None and files[STUDENT].sha256 != undisturbed:
            yield "its student is not that of the same job without faults"
        left = ["student", "teacher"] if job.spec["teacher"]["training"] else ["student"]
        if (listed := sorted(model.part for model in models)) != left:
            yield f"it left {left}, and {listed} are listed"
    elif models and job.status != Status.CANCELLED:
        yield f"it is {job.status} and has a model"
    if job.status in FINAL and any(row.kind == "checkpoint" for row in files.values()):
        yield "its checkpoint was kept"


def _downloads(cluster: Cluster, stored: "Stored") -> Iterator[Broken]:
    """What comes over HTTP has the size and the SHA-256 that the service told."""
    headers = {"Authorization": f"Bearer {cluster.api_key}"}
    for number, row in enumerate(row for row in stored.artifacts if row.kind == "result"):
        url = f"{cluster.urls[number % len(cluster.urls)]}/v1/jobs/{row.job_id}/artifacts/{row.name}"
        answer = cluster.http.get(url, headers=headers)
        got = (answer.status_code, len(answer.content), hashlib.sha256(answer.content).hexdigest())
        if got != (200, row.size, row.sha256):
            yield Broken(f"{row.name} of {row.size} bytes with SHA-256 {row.sha256} came as {got}", row.job_id)


# ---------------------------------------------------------------- charges


def _times(job: Job, events: Sequence[JobEvent]) -> Iterator[str]:
    """Its running time is that of its attempts, by its log."""
    ran, started = 0.0, None
    for event in events:
        if event.type == "job.running":
            started = event.created_at
        elif started is not None and event.type.removeprefix("job.") in set(Status):
            ran, started = ran + (event.created_at - started).total_seconds(), None
    if abs(ran - job.run_seconds) > _CLOCK_TOLERANCE_SECONDS * max(1, job.attempt):
        yield f"its attempts ran {ran:.3f} s by its log, and it is charged {job.run_seconds:.3f} s"


def _charge(job: Job) -> Iterator[str]:
    """No attempt is charged for what machines did: none of these jobs ends by its own doing."""
    if job.crashes:
        yield f"{job.crashes} of its attempts are charged as crashes"


def _account(stored: "Stored") -> Iterator[Broken]:
    """What the account and the fair share say is the running time of all jobs."""
    slot_seconds, counted = sum(hour.cpu_slot_seconds for hour in stored.hours), sum(hour.jobs for hour in stored.hours)
    ran, started = sum(job.run_seconds * job.cpu_slots for job in stored.jobs), sum(job.attempt > 0 for job in stored.jobs)
    if abs(slot_seconds - ran) > 0.01 * max(1.0, ran) or counted != started:
        yield Broken(f"the account has {slot_seconds:.2f} slot-seconds of {counted} jobs; {started} jobs ran for {ran:.2f}")
    used = sum(usage.amount for usage in stored.usage)
    if abs(used - ran * CPU_SLOT_CHARGE) > 0.02 * ran * CPU_SLOT_CHARGE + 0.01:
        yield Broken(f"the fair share counts {used:.3f} GPU-seconds, and {ran * CPU_SLOT_CHARGE:.3f} were used")


# ---------------------------------------------------------------- nothing left behind


def _stray_files(cluster: Cluster, stored: "Stored") -> Iterator[Broken]:
    """The store holds what rows name, once the sweep has been there."""
    named = {row.path for row in stored.artifacts} | {file["path"] for model in stored.models for file in model.files}
    spent = {row.path for row in stored.artifacts if row.kind == "spent"}  # the sweep removes these at any moment
    if missing := named - spent - set(_stored(cluster)):
        yield Broken(f"the store lacks {sorted(missing)[:5]}")

    def stray() -> list[str]:
        return sorted(path for path in set(_stored(cluster)) - (named - spent) if path.startswith("jobs/"))

    try:
        until(lambda: not stray(), "", timeout_seconds=_SETTLE_SECONDS)
    except NeverCame:
        yield Broken(f"no row names {stray()[:5]}")
    if cluster.store.strays:
        yield Broken(f"while the store was away, its place got {cluster.store.strays[:5]}")


def _stored(cluster: Cluster) -> list[str]:
    folder = cluster.store.folder
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _nothing_runs(cluster: Cluster) -> Iterator[Broken]:
    """No trainer, no device and no folder of an attempt is held."""

    def held() -> list[str]:
        workers = cluster.get("/v1/workers")["data"]
        devices = [f"{d['name']} of {w['id']}" for w in workers if w["alive"] for d in w["devices"] if d["job_ids"]]
        folders = [str(path) for disk in cluster.scratch for path in disk.folder.glob("stillhouse-*/job_*")]
        abandoned = [str(path) for disk in cluster.scratch for path in sorted(disk.folder.glob("stillhouse-*"))[1:]]
        return [*(str(trainer) for trainer in cluster.trainers()), *devices, *folders, *abandoned]

    try:
        until(lambda: not held(), "", timeout_seconds=_SETTLE_SECONDS)
    except NeverCame:
        yield Broken(f"nothing runs, and these are left: {held()}")


def nothing_is_left(cluster: Cluster) -> Iterator[Broken]:
    """After an orderly stop no process of the service is there, and no file in its scratch folders but the cached outputs."""
    try:
        until(lambda: not cluster.own_processes(), "", timeout_seconds=_SETTLE_SECONDS)
    except NeverCame:
        yield Broken(f"the service has stopped, and these processes are left: {cluster.own_processes()}")


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Stored:
    """What the database holds."""

    jobs: list[Job]
    events: dict[str, list[JobEvent]]
    """By job."""
    writers: dict[str, dict[int, str]]
    """Names of the processes that wrote the events, by job and by the event's number."""
    artifacts: list[Artifact]
    models: list[Model]
    hours: list[UsageHour]
    usage: list[Usage]


def read(cluster: Cluster) -> Stored:
    """Reads all of it, in one transaction."""
    with closing(cluster.database()) as database, database.transaction() as session:
        jobs = list(session.scalars(select(Job).order_by(Job.id)))
        stored = Stored(
            jobs,
            {job.id: [] for job in jobs},
            {job.id: {} for job in jobs},
            list(session.scalars(select(Artifact).order_by(Artifact.job_id, Artifact.name))),
            list(session.scalars(select(Model))),
            list(session.scalars(select(UsageHour))),
            list(session.scalars(select(Usage))),
        )
        for event in session.scalars(select(JobEvent).order_by(JobEvent.job_id, JobEvent.seq)):
            stored.events[event.job_id].append(event)
        for row in session.execute(text("SELECT job_id, seq, writer FROM writers")):
            stored.writers[row.job_id][row.seq] = row.writer
    return stored


def tell_story(cluster: Cluster, job_id: str) -> str:
    """The event log of a job."""
    stored = read(cluster)
    return told(stored.events[job_id], stored.writers[job_id])
