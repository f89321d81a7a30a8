"""A job may have transfer rows, from a dataset of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("transfer_id", sa.Text(), nullable=True))
    op.create_foreign_key("fk_jobs_transfer_id", "jobs", "datasets", ["transfer_id"], ["id"], ondelete="SET NULL")
    op.create_index("ix_jobs_transfer", "jobs", ["transfer_id"], postgresql_where=sa.text("transfer_id IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_jobs_transfer", table_name="jobs")
    op.drop_constraint("fk_jobs_transfer_id", "jobs", type_="foreignkey")
    op.drop_column("jobs", "transfer_id")
