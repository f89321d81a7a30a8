"""Previews of specs: some samples as the networks will read them, which a worker makes, since only workers read data as they do.

A preview belongs to a worker by a lease and a fence, as a job's check does. One whose worker falls silent is made by another,
``MAX_ATTEMPTS`` times in all. It is kept for a day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.orm import Session

from service import clock
from service.errors import JobFailure, NotFound, PreviewLimitReached
from service.ids import new_id
from service.spec import JobSpec
from service.tables import Preview, User

MAX_UNMADE = 4
"""Of one user: a preview is waited for, and takes a worker's time."""
MAX_ATTEMPTS = 3
KEPT = timedelta(days=1)
_MOST = 1000


@dataclass(frozen=True)
class PreviewFence:
    """One attempt at one preview: what a worker names with every write."""

    preview_id: str
    attempt: int


def ask(session: Session, spec: JobSpec, *, owner_id: str, num_samples: int) -> Preview:
    """Stores a preview that a worker of the spec's pool is to make.

    Raises:
        PreviewLimitReached: the user waits for as many as permitted.
    """
    session.get(User, owner_id, with_for_update=True)  # no other of theirs begins until the commit
    unmade = select(func.count()).where(Preview.owner_id == owner_id, Preview.finished_at.is_(None))
    if (session.scalar(unmade) or 0) >= MAX_UNMADE:
        raise PreviewLimitReached(f"you wait for {MAX_UNMADE} previews; read them first", retry_after_seconds=5)
    preview = Preview(
        id=new_id("preview"),
        owner_id=owner_id,
        pool=spec.resources.pool,
        spec=spec.model_dump(mode="json"),
        num_samples=num_samples,
    )
    session.add(preview)
    session.flush()
    session.refresh(preview)
    return preview


def find(session: Session, preview_id: str) -> Preview:
    """Reads one preview. Raises NotFound."""
    preview = session.get(Preview, preview_id)
    if preview is None:
        raise NotFound(f"there is no preview {preview_id!r:.80}; each is kept for a day")
    return preview


def claim(session: Session, pool: str, *, lease_seconds: float) -> Preview | None:
    """Claims the oldest preview that no worker makes. None: there is none."""
    unmade = and_(Preview.pool == pool, Preview.finished_at.is_(None), Preview.lease_expires_at.is_(None))
    oldest = select(Preview).where(unmade).order_by(Preview.id).limit(1)
    preview = session.scalar(oldest.with_for_update(skip_locked=True).execution_options(populate_existing=True))
    if preview is None:
        return None
    preview.attempt += 1
    preview.lease_expires_at = clock.now(session) + timedelta(seconds=lease_seconds)
    session.flush()
    return preview


def renew(session: Session, fence: PreviewFence, *, lease_seconds: float) -> bool:
    """Extends the lease; False: the preview is no longer this worker's."""
    until = clock.now_sql(session) + clock.seconds_sql(lease_seconds)
    held = update(Preview).where(_holds(fence)).values(lease_expires_at=until).returning(Preview.id)
    return session.scalar(held) is not None


def finish(session: Session, fence: PreviewFence, made: dict[str, Any] | JobFailure) -> bool:
    """Records what came of it; False: it is no longer this worker's."""
    values = {"error": made.model_dump(mode="json")} if isinstance(made, JobFailure) else {"result": made}
    ended = {"finished_at": clock.now_sql(session), "lease_expires_at": None}
    done = update(Preview).where(_holds(fence)).values(**values, **ended).returning(Preview.id)
    return session.scalar(done) is not None


def give_back(session: Session, fence: PreviewFence, why: str) -> None:
    """Lets another worker make it, or ends it if it was tried often."""
    preview = session.scalar(select(Preview).where(_holds(fence)).with_for_update())
    if preview is not None:
        _lose(session, preview, why)


def expire(session: Session) -> None:
    """Takes previews from silent workers, and removes those of yesterday."""
    now = clock.now_sql(session)
    silent = select(Preview).where(Preview.finished_at.is_(None), Preview.lease_expires_at < now).order_by(Preview.id)
    for preview in session.scalars(silent.limit(_MOST).with_for_update(skip_locked=True)).all():
        _lose(session, preview, "the worker that made it fell silent")
    old = select(Preview.id).where(Preview.created_at < clock.now(session) - KEPT).limit(_MOST)
    session.execute(delete(Preview).where(Preview.id.in_(old)))


def unmade_pools(session: Session) -> Sequence[str]:
    """Reads the pools in which previews wait for a worker."""
    waiting = Preview.finished_at.is_(None) & Preview.lease_expires_at.is_(None)
    return session.scalars(select(Preview.pool).where(waiting).distinct()).all()


def _lose(session: Session, preview: Preview, why: str) -> None:
    preview.lease_expires_at = None
    if preview.attempt >= MAX_ATTEMPTS:
        preview.error = JobFailure(code="trainer_error", message=f"It was tried {preview.attempt} times: {why}.").model_dump()
        preview.finished_at = clock.now(session)


def _holds(fence: PreviewFence) -> ColumnElement[bool]:
    held = Preview.lease_expires_at.is_not(None) & Preview.finished_at.is_(None)
    return and_(Preview.id == fence.preview_id, Preview.attempt == fence.attempt, held)
