"""Statements that read jobs and the keys of those who ask, together: what is read is of one moment, and of the asking or later.

A row holds a key or a job; the columns of the other are null. Spec and result are text, to be sent as they are.
"""

from typing import LiteralString

_CALLERS: LiteralString = """
    SELECT key.sha256, key.id AS key_id, key.user_id, owner.name AS user_name, key.role, key.revoked_at
    FROM api_keys AS key JOIN users AS owner ON owner.id = key.user_id
    WHERE key.sha256 = ANY(%(digests)s)
"""
_COLUMNS: LiteralString = """
    job.name, job.labels, job.status, job.status_reason, job.stop_requested, job.priority, job.progress, job.attempt,
    job.max_attempts, job.crashes, job.worker_id, job.devices, job.created_at, job.queued_at, job.started_at, job.finished_at,
    job.gpu_seconds, job.estimate, job.warnings, job.error, job.pool, job.owner_id, job.gpus, job.cpu_slots,
    job.min_gpu_memory_gib, owner.name AS owner, job.spec::text AS spec, job.result::text AS result
"""
JOBS: LiteralString = f"""
WITH caller AS ({_CALLERS}), job AS (
    SELECT found.id, found.version, {_COLUMNS}
    FROM unnest(%(job_ids)s::text[], %(known_versions)s::bigint[]) AS asked(id, version)
    JOIN jobs AS found ON found.id = asked.id
    LEFT JOIN jobs AS job ON job.id = found.id AND found.version IS DISTINCT FROM asked.version
    LEFT JOIN users AS owner ON owner.id = job.owner_id
)
SELECT * FROM caller FULL JOIN job ON false
"""  # noqa: S608 - what is put in are words of this project
"""Jobs by their ids, and keys by their digests. Of a job that is at the version that is known already, id and version alone."""
