"""A queue that a team shares: classes and shapes, fair shares and limits, reservations, checks, drains."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LEASE_BEFORE = "(status = 'running') = (lease_expires_at IS NOT NULL) AND (status = 'running') <= (worker_id IS NOT NULL)"
_LEASE_NOW = (
    "(status = 'running') <= (lease_expires_at IS NOT NULL AND worker_id IS NOT NULL)"
    " AND (lease_expires_at IS NOT NULL) <= (status IN ('running', 'checking'))"
)


def upgrade() -> None:
    op.add_column("users", sa.Column("share_weight", sa.Double(), server_default=sa.text("1"), nullable=False))
    op.add_column("users", sa.Column("max_running_jobs", sa.Integer(), nullable=True))
    op.add_column("users", sa.Column("max_queued_jobs", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("ck_users_share_weight"), "users", "share_weight > 0")
    op.create_check_constraint(op.f("ck_users_limits"), "users", "max_running_jobs >= 0 AND max_queued_jobs >= 0")
    op.create_table(
        "usage",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("amount", sa.Double(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_usage_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_usage")),
    )
    op.create_table(
        "usage_hours",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("cpu_slot_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("jobs", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_usage_hours_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "hour", name=op.f("pk_usage_hours")),
    )
    op.create_table(
        "sweeps",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.add_column("workers", sa.Column("drain_finishes", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(op.f("ck_job_dependencies_another"), "job_dependencies", "job_id <> needs_job_id")

    op.add_column("jobs", sa.Column("queue_class", sa.SmallInteger(), nullable=True))
    op.add_column("jobs", sa.Column("cpu_slots", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column("jobs", sa.Column("shape", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("max_runtime_seconds", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("checks", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("estimate", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("jobs", sa.Column("reserved_worker_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("expected_end_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("charged_seconds", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("accounted_seconds", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.execute(
        "UPDATE jobs SET queue_class = priority,"
        " shape = CASE WHEN gpus = 0 THEN 'cpu:1' ELSE 'gpu:' || gpus || ':' || ceil(coalesce(min_gpu_memory_gib, 0)) END,"
        " max_runtime_seconds = (spec -> 'resources' ->> 'max_runtime_seconds')::integer,"
        " waiting_since = CASE WHEN status = 'queued' THEN queued_at END"
    )
    for column in ("queue_class", "shape", "max_runtime_seconds"):
        op.alter_column("jobs", column, nullable=False)
    op.create_foreign_key(op.f("fk_jobs_reserved_worker_id"), "jobs", "workers", ["reserved_worker_id"], ["id"])
    op.drop_constraint(op.f("ck_jobs_running_has_lease"), "jobs", type_="check")
    op.create_check_constraint(op.f("ck_jobs_running_has_lease"), "jobs", _LEASE_NOW)
    op.create_check_constraint(op.f("ck_jobs_queued_since"), "jobs", "(status = 'queued') = (waiting_since IS NOT NULL)")
    op.create_check_constraint(op.f("ck_jobs_only_queued_reserves"), "jobs", "reserved_worker_id IS NULL OR status = 'queued'")
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.drop_index("ix_jobs_lease", table_name="jobs")
    for name, columns, where in _INDEXES:
        op.create_index(name, "jobs", columns, unique=False, postgresql_where=sa.text(where))
    op.create_index("ix_jobs_owner_status", "jobs", ["owner_id", "status", "id"])

    # A GIN index finds all jobs of a label, to be sorted then: this one finds the newest first.
    op.drop_index("ix_jobs_labels", table_name="jobs", postgresql_using="gin")
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_labels_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_job_labels")),
    )
    op.execute("INSERT INTO job_labels SELECT id, label.key, label.value FROM jobs, jsonb_each_text(labels) AS label")
    op.create_index("ix_job_labels_found", "job_labels", ["key", "value", "job_id"])

    op.drop_index("ix_artifacts_checkpoint", table_name="artifacts")
    op.execute(
        "UPDATE artifacts SET kind = 'spent' FROM jobs WHERE jobs.id = job_id AND kind = 'checkpoint'"
        " AND (status IN ('succeeded', 'cancelled')"
        " OR (status = 'failed' AND error ->> 'code' NOT IN ('time_limit', 'artifacts_unavailable')))"
    )
    op.create_index("ix_artifacts_spent", "artifacts", ["job_id"], postgresql_where=sa.text("kind = 'spent'"))


def downgrade() -> None:
    op.drop_index("ix_artifacts_spent", table_name="artifacts")
    op.execute("UPDATE artifacts SET kind = 'checkpoint' WHERE kind = 'spent'")
    op.create_index("ix_artifacts_checkpoint", "artifacts", ["job_id"], postgresql_where=sa.text("kind = 'checkpoint'"))
    op.drop_table("job_labels")
    op.create_index("ix_jobs_labels", "jobs", ["labels"], unique=False, postgresql_using="gin")
    op.drop_index("ix_jobs_owner_status", table_name="jobs")
    for name, _, _ in _INDEXES:
        op.drop_index(name, table_name="jobs")
    op.create_index("ix_jobs_lease", "jobs", ["lease_expires_at"], postgresql_where=sa.text("status = 'running'"))
    op.create_index(
        "ix_jobs_claim", "jobs", ["pool", "priority", "queued_at", "id"], postgresql_where=sa.text("status = 'queued'")
    )
    # What was being checked is checked no more.
    op.execute(
        "UPDATE jobs SET status = 'queued', queued_at = created_at, waiting_since = now(), lease_expires_at = NULL"
        " WHERE status = 'checking'"
    )
    for name in ("only_queued_reserves", "queued_since", "running_has_lease"):
        op.drop_constraint(op.f(f"ck_jobs_{name}"), "jobs", type_="check")
    op.create_check_constraint(op.f("ck_jobs_running_has_lease"), "jobs", _LEASE_BEFORE)
    op.drop_constraint(op.f("fk_jobs_reserved_worker_id"), "jobs", type_="foreignkey")
    for column in (
        "accounted_seconds",
        "charged_seconds",
        "expected_end_at",
        "waiting_since",
        "reserved_worker_id",
        "estimate",
        "checks",
        "max_runtime_seconds",
        "shape",
        "cpu_slots",
        "queue_class",
    ):
        op.drop_column("jobs", column)
    op.drop_constraint(op.f("ck_job_dependencies_another"), "job_dependencies", type_="check")
    op.drop_column("workers", "drain_finishes")
    op.drop_table("sweeps")
    op.drop_table("usage_hours")
    op.drop_table("usage")
    for name in ("limits", "share_weight"):
        op.drop_constraint(op.f(f"ck_users_{name}"), "users", type_="check")
    for column in ("max_queued_jobs", "max_running_jobs", "share_weight"):
        op.drop_column("users", column)


_INDEXES = [
    ("ix_jobs_queue", ["pool", "queue_class", "owner_id", "shape", "priority", "queued_at", "id"], "status = 'queued'"),
    ("ix_jobs_promotion", ["waiting_since"], "status = 'queued' AND queue_class = priority AND priority > 0"),
    ("ix_jobs_reserved", ["pool"], "reserved_worker_id IS NOT NULL"),
    ("ix_jobs_high", ["pool"], "status = 'queued' AND priority = 0"),
    ("ix_jobs_checking", ["pool", "owner_id", "priority", "id"], "status = 'checking' AND lease_expires_at IS NULL"),
    ("ix_jobs_in_check", ["owner_id"], "status = 'checking' AND lease_expires_at IS NOT NULL"),
    ("ix_jobs_lease", ["lease_expires_at"], "lease_expires_at IS NOT NULL"),
    ("ix_jobs_running", ["worker_id"], "status = 'running'"),
    ("ix_jobs_running_owner", ["owner_id"], "status = 'running'"),
    ("ix_jobs_finished", ["pool", "finished_at"], "status = 'succeeded'"),
    ("ix_jobs_unstarted", ["owner_id"], "status IN ('checking', 'waiting', 'queued')"),
]
