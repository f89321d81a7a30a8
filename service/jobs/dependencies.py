"""Jobs that a job needs, and models that it uses: looked up, locked, changed."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy import delete, or_, select, tuple_
from sqlalchemy.orm import Session

from service.errors import CircularDependency, FieldError, InvalidSpec, InvalidTransition
from service.jobs import transitions
from service.lifecycle import UNSTARTED, Outcome, Status
from service.spec import JobSpec
from service.tables import Job, JobDependency, Model

_MOST_HANDLES = 10_000


def needed_jobs(session: Session, spec: JobSpec, *, lock: bool = False) -> tuple[list[Job], list[FieldError]]:
    """Reads the jobs that a spec depends on, in the order of their ids, and the reasons why it cannot depend on some of them.

    With ``lock`` none of them can finish before the transaction ends, so no job is stored to wait for one that has ended.
    """
    pointers = {job_id: f"/depends_on/{index}" for index, job_id in enumerate(spec.depends_on)}
    pointers |= {source.name: pointer for pointer, source in spec.given_networks.items() if source.kind == "job"}
    if not pointers:
        return [], []
    query = select(Job).where(Job.id.in_(pointers)).order_by(Job.id)
    found = {job.id: job for job in session.scalars(query.with_for_update(read=True) if lock else query)}
    faults = []
    for job_id, pointer in pointers.items():
        job = found.get(job_id)
        if job is None:
            faults.append(FieldError(pointer=pointer, message=f"there is no job {job_id!r}; GET /v1/jobs lists those that exist"))
        elif job.status in {Status.FAILED, Status.CANCELLED}:
            student = session.scalar(select(Model.id).where(Model.job_id == job_id, Model.part == "student"))
            teaches = student is not None and not pointer.startswith("/depends_on")
            instead = f"what it kept of its student is model:{student}" if teaches else "name one that can still succeed"
            faults.append(FieldError(pointer=pointer, message=f"job {job_id} is {job.status}; {instead}"))
    return list(found.values()), faults


def used_models(session: Session, spec: JobSpec, *, lock: bool = False) -> list[Model]:
    """Reads the stored models that a spec uses: those that it names, and those that jobs left which it names.

    With ``lock`` none of them can be deleted before the transaction ends.
    """
    sources = spec.given_networks.values()
    ids = [source.name for source in sources if source.kind == "model"]
    of_jobs = [(source.name, source.part) for source in sources if source.kind == "job"]
    if not ids and not of_jobs:
        return []
    is_used = or_(Model.id.in_(ids), Model.handle.in_(ids), tuple_(Model.job_id, Model.part).in_(of_jobs))
    query = select(Model).where(is_used).order_by(Model.id)
    return list(session.scalars(query.with_for_update(read=True) if lock else query))


def similar_handles(session: Session, name: str) -> list[str]:
    """Reads the handles of models that are most like ``name``, the nearest first."""
    handles = session.scalars(select(Model.handle).where(Model.handle.is_not(None)).limit(_MOST_HANDLES))
    return get_close_matches(name, [handle for handle in handles if handle is not None], n=3)


def hold_needs(session: Session, spec: JobSpec) -> list[Job]:
    """Reads and locks the jobs that a spec depends on. Raises InvalidSpec if it cannot depend on one of them."""
    found, faults = needed_jobs(session, spec, lock=True)
    if faults:
        raise InvalidSpec(faults)
    return found


def enter_queue(session: Session, job: Job, data: dict[str, Any] | None = None) -> Outcome:
    """Queues a job that is checked, or whose needs have changed; it waits if it needs jobs that have not succeeded, and fails if
    one of them failed or was cancelled."""
    query = select(Job).join(JobDependency, JobDependency.needs_job_id == Job.id).where(JobDependency.job_id == job.id)
    with session.no_autoflush:  # the row is to be written as a whole
        # FOR SHARE: none of them can finish between this look and our commit.
        needs = session.scalars(query.order_by(Job.id).with_for_update(read=True, of=Job)).all()
    lost = next((needed for needed in needs if needed.status in {Status.FAILED, Status.CANCELLED}), None)
    if lost is not None:
        return transitions.fail(session, job, transitions.dependency_failed(lost))
    status, reason = by_needs(needs)
    if status == job.status:
        job.status_reason = reason
        return Outcome.ALREADY
    enter = transitions.wait if status is Status.WAITING else transitions.enqueue
    return enter(session, job, reason, data)


def by_needs(needs: Iterable[Job]) -> tuple[Status, str]:
    """The state of a job that needs nothing but these, with its reason."""
    unfinished = [needed.id for needed in needs if needed.status != Status.SUCCEEDED]
    return (Status.WAITING, f"waits for {', '.join(unfinished)}") if unfinished else (Status.QUEUED, "queued")


def depend(session: Session, job: Job, needs: Sequence[Job]) -> None:
    if Status(job.status) not in UNSTARTED or job.attempt:
        raise InvalidTransition(f"job {job.id} is {job.status}: what it depends on can be changed before it starts alone")
    if circle := _circle(session, job.id, [needed.id for needed in needs]):
        raise CircularDependency(
            f"{' needs '.join(circle)}: none of them could ever start; leave {circle[1]} out", param="/depends_on"
        )
    session.execute(delete(JobDependency).where(JobDependency.job_id == job.id))
    session.add_all(JobDependency(job_id=job.id, needs_job_id=needed.id) for needed in needs)
    session.flush()
    if job.status == Status.CHECKING:
        return
    enter_queue(session, job)


def _circle(session: Session, job_id: str, needs: Sequence[str]) -> list[str] | None:
    """Finds a path from the job back to itself through these needs, if there is one."""
    came_from = dict.fromkeys(needs, job_id)
    open_ends = list(needs)
    while open_ends:
        if job_id in came_from:
            way = [job_id]
            while True:
                way.append(came_from[way[-1]])
                if way[-1] == job_id:
                    break
            return way[::-1]
        query = select(JobDependency.job_id, JobDependency.needs_job_id).where(JobDependency.job_id.in_(open_ends))
        further = {row.needs_job_id: row.job_id for row in session.execute(query) if row.needs_job_id not in came_from}
        came_from |= further
        open_ends = list(further)
    return None
