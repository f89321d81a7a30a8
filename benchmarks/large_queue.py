"""A made-up service of any size, loaded into an empty database by a few statements: users, hosts, jobs of every state.

Of all jobs a tenth is queued and 2 on each host run, so every host is full; the rest has ended. Each user's queued jobs are of
several needs and classes, and each job carries a whole spec, labels and, where it ran, a use of its owner.
"""

import json
from dataclasses import dataclass

from sqlalchemy import text

from service.database import Database
from service.spec import parse_spec

SPEC = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 8}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
}
GPUS = 8
MEMORY_GIB = 80.0


@dataclass(frozen=True)
class Size:
    """How many there are of each."""

    jobs: int
    queued: int
    users: int
    workers: int

    @property
    def running(self) -> int:
        return 2 * self.workers


def load(database: Database, size: Size) -> None:
    """Fills the empty tables and has PostgreSQL look at them."""
    values = {
        "users": size.users,
        "workers": size.workers,
        "jobs": size.jobs,
        "running": size.running,
        "queued": size.queued,
        "spec": json.dumps(parse_spec(SPEC).model_dump(mode="json")),
        "devices": json.dumps([{"name": f"cuda:{n}", "kind": "cuda", "memory_gib": MEMORY_GIB} for n in range(GPUS)]),
    }
    with database.engine.begin() as connection:
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in (_USERS, _USAGE, _WORKERS, _JOBS, _LABELS, _CHECKPOINTS):
            connection.execute(text(statement), values)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))


def worker_id(number: int) -> str:
    return f"worker_{number:026d}"


def job_id(number: int) -> str:
    """Of the first to the last, from 1."""
    return f"job_{number:026d}"


_USERS = """
INSERT INTO users (id, name, share_weight)
SELECT 'user_' || n, 'user ' || n, 1 + n % 3 FROM generate_series(1, :users) n
"""
_USAGE = """
INSERT INTO usage (user_id, amount, as_of)
SELECT 'user_' || n, n * 7919 % 100000, now() - n * interval '1 minute' FROM generate_series(1, :users) n
"""
_WORKERS = """
INSERT INTO workers (id, host, pid, pool, slots, devices)
SELECT 'worker_' || lpad(n::text, 26, '0'), 'host-' || n, 1, 'default', 8, CAST(:devices AS jsonb)
FROM generate_series(0, :workers - 1) n
"""
_JOBS = r"""
INSERT INTO jobs (id, owner_id, name, labels, spec, status, status_reason, pool, priority, queue_class, gpus, cpu_slots,
                  shape, max_runtime_seconds, attempt, max_attempts, worker_id, devices, lease_expires_at,
                  created_at, queued_at, waiting_since, started_at, finished_at, run_seconds, error)
SELECT 'job_' || lpad(n::text, 26, '0'), 'user_' || 1 + owner, 'job ' || n,
       jsonb_build_object('project', 'p' || n % 50, 'run', n::text), CAST(:spec AS jsonb), status, status, 'default',
       priority, priority, gpus, 1, 'gpu:' || gpus || '\:0', 86400,
       CASE WHEN status = 'queued' THEN 0 ELSE 1 END, 3,
       CASE WHEN status <> 'queued' THEN 'worker_' || lpad((n % :workers)::text, 26, '0') END,
       CASE WHEN status = 'running' THEN CASE WHEN n <= :workers THEN ARRAY['cuda:0', 'cuda:1', 'cuda:2', 'cuda:3']
                                              ELSE ARRAY['cuda:4', 'cuda:5', 'cuda:6', 'cuda:7'] END END,
       CASE WHEN status = 'running' THEN now() + interval '1 hour' END,
       at, at, CASE WHEN status = 'queued' THEN at END,
       CASE WHEN status = 'running' THEN now() - n % 600 * interval '1 minute' WHEN status <> 'queued' THEN at END,
       CASE WHEN status IN ('succeeded', 'failed') THEN at + interval '1 hour' END,
       CASE WHEN status = 'succeeded' THEN 600 + n * 37 % 20000 ELSE 0 END,
       CASE WHEN status = 'failed'
            THEN jsonb_build_object('code', CASE WHEN n % 100 = 0 THEN 'time_limit' ELSE 'trainer_crashed' END,
                                    'message', 'it ended') END
FROM (
    SELECT n, n * 7 % :users AS owner,
           now() - (:jobs - n) * interval '0.5 seconds' AS at,
           CASE WHEN n <= :running THEN 'running' WHEN n > :jobs - :queued THEN 'queued'
                WHEN n % 10 = 0 THEN 'failed' ELSE 'succeeded' END AS status,
           CASE WHEN n <= :running THEN 4 ELSE (ARRAY[1, 1, 2, 4, 8])[1 + n / :users % 5] END AS gpus,
           CASE WHEN n / :users % 10 < 8 THEN 1 ELSE 2 END AS priority
    FROM generate_series(1, :jobs) n
) AS drawn
"""
_LABELS = "INSERT INTO job_labels SELECT id, label.key, label.value FROM jobs, jsonb_each_text(labels) AS label"
_CHECKPOINTS = """
INSERT INTO artifacts (job_id, name, kind, attempt, path, size, sha256, media_type)
SELECT id, 'checkpoint.safetensors', 'checkpoint', 1, 'jobs/' || id, 3, '00', 'application/octet-stream'
FROM jobs WHERE status = 'running' OR error ->> 'code' = 'time_limit'
"""
