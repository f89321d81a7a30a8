"""Statements that read jobs and the keys of those who ask, together: what is read is of one moment, and of the asking or later.

A row holds a key or a job; the columns of the other are null. Spec and result are text, to be sent as they are.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, LiteralString

from sqlalchemy import bindparam
from sqlalchemy.engine import Dialect, make_url

from service import queries
from service.queries import JobFilter

_CALLERS: LiteralString = """
    SELECT key.sha256, key.id AS key_id, key.user_id, owner.name AS user_name, key.role, key.revoked_at
    FROM api_keys AS key JOIN users AS owner ON owner.id = key.user_id
    WHERE key.sha256 = ANY(ARRAY(SELECT json_array_elements_text(%(digests)s::json)))
"""
_COLUMNS: LiteralString = """
    job.name, job.labels, job.status, job.status_reason, job.stop_requested, job.priority, job.progress, job.attempt,
    job.max_attempts, job.crashes, job.worker_id, job.devices, job.created_at, job.queued_at, job.started_at, job.finished_at,
    job.gpu_seconds, job.estimate, job.warnings, job.error, job.pool, job.owner_id, job.gpus, job.cpu_slots,
    job.min_gpu_memory_gib, owner.name AS owner, job.spec::text AS spec, job.result::text AS result
"""
OWNER: LiteralString = "SELECT id FROM users WHERE name = %(name)s"
"""By whose id a list is read: PostgreSQL knows how many jobs an owner has, but not while the id is an expression."""
_KNOWN: LiteralString = "json_each_text(%(known_versions)s::json) AS known(id, version)"
_UNKNOWN: LiteralString = """
    LEFT JOIN jobs AS job ON job.id = found.id AND found.version IS DISTINCT FROM known.version::bigint
    LEFT JOIN users AS owner ON owner.id = job.owner_id
"""
JOBS: LiteralString = f"""
WITH caller AS ({_CALLERS}), job AS (
    SELECT found.id, found.version, {_COLUMNS}
    FROM {_KNOWN} JOIN jobs AS found ON found.id = known.id {_UNKNOWN}
)
SELECT * FROM caller FULL JOIN job ON false
"""  # noqa: S608 - what is put in are words of this project
"""Jobs by their ids, and keys by their digests. Of a job that is at the version that is known already, id and version alone.

Both parameters are JSON, a list of digests and an object of versions by id: to send arrays takes psycopg longer than the rest of
the statement.
"""

_DIALECT: Dialect = make_url("postgresql+psycopg://").get_dialect()()


def page(wanted: JobFilter, *, after: str | None, limit: int, known_versions: Mapping[str, int]) -> tuple[str, dict[str, Any]]:
    """The statement for the first ``limit`` jobs of a list, newest first, those after ``after``, and its parameters.

    Of a job that still has its known version, id and version alone.
    """
    statuses = dict.fromkeys(wanted.statuses)
    parameters: dict[str, Any] = {"limit": limit, "after": after, "owner_id": wanted.owner_id}
    parameters["known_versions"] = json.dumps(known_versions)
    parameters |= {f"status_{number}": status for number, status in enumerate(statuses)}
    for number, (key, value) in enumerate(wanted.labels):
        parameters |= {f"key_{number}": key, f"value_{number}": value}
    return _page(len(statuses), wanted.owner_id is not None, len(wanted.labels), after is not None), parameters


@lru_cache(maxsize=1024)
def _page(num_statuses: int, has_owner: bool, num_labels: int, has_after: bool) -> str:
    """Of all filters of one shape: building the text takes longer than running it."""
    bound: Any = bindparam
    wanted = JobFilter(
        statuses=tuple(bound(f"status_{number}") for number in range(num_statuses)),
        owner_id=bound("owner_id") if has_owner else None,
        labels=tuple((bound(f"key_{number}"), bound(f"value_{number}")) for number in range(num_labels)),
    )
    ids = queries.page_ids(wanted, after=bound("after") if has_after else None, limit=bound("limit"))
    return f"""
WITH page AS ({ids.compile(dialect=_DIALECT)})
SELECT found.id, found.version, {_COLUMNS}
FROM page JOIN jobs AS found ON found.id = page.id LEFT JOIN {_KNOWN} ON known.id = found.id {_UNKNOWN}
ORDER BY found.id DESC
"""  # noqa: S608 - what is put in are words of this project
