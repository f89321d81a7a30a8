"""A write of an attempt is made once; after a job's end the store is searched for what lost attempts left."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("writes", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("tidied", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_jobs_untidied", "jobs", ["finished_at"], postgresql_where=sa.text("NOT tidied"))


def downgrade() -> None:
    op.drop_index("ix_jobs_untidied", "jobs")
    op.drop_column("jobs", "tidied")
    op.drop_column("jobs", "writes")
