"""The store is known by an id."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store_identity",
        sa.Column("one", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("is_set_up", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_store_identity_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_store_identity")),
    )


def downgrade() -> None:
    op.drop_table("store_identity")
