"""The index of idempotency keys holds the jobs that have one: by the whole of it lists of an owner were read now and then."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "uq_jobs_idempotency_key",
        "jobs",
        ["owner_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_constraint("uq_jobs_owner_id_idempotency_key", "jobs")


def downgrade() -> None:
    op.create_unique_constraint("uq_jobs_owner_id_idempotency_key", "jobs", ["owner_id", "idempotency_key"])
    op.drop_index("uq_jobs_idempotency_key", "jobs")
