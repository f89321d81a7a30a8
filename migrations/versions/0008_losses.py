"""What machines take from a job is counted apart from what it does to itself."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("losses", "failed_checks"):
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE jobs SET failed_checks = greatest(0, checks - 1) WHERE status = 'checking'")


def downgrade() -> None:
    for name in ("failed_checks", "losses"):
        op.drop_column("jobs", name)
