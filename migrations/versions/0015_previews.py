"""Previews: some samples of a spec as its networks will read them, made by a worker."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "previews",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column("num_samples", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("result", JSONB(), nullable=True),
        sa.Column("error", JSONB(), nullable=True),
        sa.Column("created_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_previews_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_previews"),
    )
    op.create_index("ix_previews_unmade", "previews", ["pool", "id"], postgresql_where=sa.text("finished_at IS NULL"))
    op.create_index("ix_previews_unmade_owner", "previews", ["owner_id"], postgresql_where=sa.text("finished_at IS NULL"))
    op.create_index("ix_previews_created_at", "previews", ["created_at"])


def downgrade() -> None:
    op.drop_table("previews")
