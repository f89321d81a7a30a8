"""Files that no other row names are noted, so that they can be removed whatever breaks off."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unlisted_files",
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("remove_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name="pk_unlisted_files"),
    )
    op.create_index("ix_unlisted_files_remove_at", "unlisted_files", ["remove_at"])


def downgrade() -> None:
    op.drop_table("unlisted_files")
