"""What is new of many jobs at once, for those who wait for it: each function is one statement, whatever the number of jobs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, select, text
from sqlalchemy.orm import Session

from service.lifecycle import FINAL
from service.tables import ApiKey, Job

_MAX_EVENTS = 500
_MAX_CHUNKS = 32

_EVENTS = text("""
SELECT event.* FROM unnest(CAST(:jobs AS text[]), CAST(:positions AS bigint[])) AS wanted(job_id, position)
CROSS JOIN LATERAL (
    SELECT * FROM job_events WHERE job_id = wanted.job_id AND seq > wanted.position ORDER BY seq LIMIT :most
) AS event
ORDER BY event.job_id, event.seq
""")
_LOGS = text("""
SELECT chunk.job_id, chunk.start, chunk.text
FROM unnest(CAST(:jobs AS text[]), CAST(:positions AS bigint[])) AS wanted(job_id, position)
CROSS JOIN LATERAL (
    SELECT * FROM log_chunks
    WHERE job_id = wanted.job_id AND start + size > wanted.position AND start >= coalesce(
        (SELECT max(start) FROM log_chunks WHERE job_id = wanted.job_id AND start <= wanted.position), 0)
    ORDER BY start LIMIT :most
) AS chunk
ORDER BY chunk.job_id, chunk.start
""")


@dataclass(frozen=True)
class State:
    """Where a job stands."""

    version: int
    is_final: bool


def states(session: Session, job_ids: Collection[str]) -> dict[str, State]:
    """Reads where the jobs stand that exist.

    Call this first and read second: everything of an ended job was committed with its end, or before.
    """
    rows = session.execute(select(Job.id, Job.version, Job.status).where(Job.id.in_(job_ids)))
    return {job_id: State(version, status in FINAL) for job_id, version, status in rows}


def events(session: Session, positions: Mapping[str, int]) -> tuple[dict[str, list[RowMapping]], set[str]]:
    """Reads the next events of each job, those with a ``seq`` above its position, and which jobs have more of them."""
    found = _by_job(session, _EVENTS, positions, _MAX_EVENTS + 1)
    more = {job_id for job_id, rows in found.items() if len(rows) > _MAX_EVENTS}
    return {job_id: rows[:_MAX_EVENTS] for job_id, rows in found.items()}, more


def logs(session: Session, positions: Mapping[str, int]) -> tuple[dict[str, bytes], set[str]]:
    """Reads the next bytes of each job's log, from its position on, and which jobs have more of them."""
    found = _by_job(session, _LOGS, positions, _MAX_CHUNKS)
    more = {job_id for job_id, rows in found.items() if len(rows) == _MAX_CHUNKS}
    return {
        job_id: b"".join(row["text"].encode() for row in rows)[max(0, positions[job_id] - rows[0]["start"]) :]
        for job_id, rows in found.items()
    }, more


def valid_keys(session: Session, key_ids: Collection[str]) -> set[str]:
    """Those of the keys that exist and are not revoked."""
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(key_ids), ApiKey.revoked_at.is_(None))))


def _by_job(session: Session, query: Any, positions: Mapping[str, int], most: int) -> dict[str, list[RowMapping]]:
    found: dict[str, list[RowMapping]] = {}
    if positions:
        values = {"jobs": list(positions), "positions": list(positions.values()), "most": most}
        for row in session.execute(query, values).mappings():
            found.setdefault(row["job_id"], []).append(row)
    return found
