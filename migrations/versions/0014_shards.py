"""Datasets are stored as shards; the uploaded file itself may not be kept."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("files", JSONB(), nullable=True))
    op.alter_column("datasets", "path", existing_type=sa.Text(), nullable=True)


def downgrade() -> None:
    # Of what was not kept the earlier service says, when it is used, that it is not in the store.
    op.execute("UPDATE datasets SET path = 'datasets/' || id || '/data' WHERE path IS NULL")
    op.alter_column("datasets", "path", existing_type=sa.Text(), nullable=False)
    op.drop_column("datasets", "files")
