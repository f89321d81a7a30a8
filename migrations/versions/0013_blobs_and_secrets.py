"""Files that models share are stored once; folders are uploaded file by file, in parts; users have secrets."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blobs"),
    )
    op.create_table(
        "model_blobs",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_blobs_model_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name="fk_model_blobs_sha256"),
        sa.PrimaryKeyConstraint("model_id", "sha256", name="pk_model_blobs"),
    )
    op.create_index("ix_model_blobs_sha256", "model_blobs", ["sha256"])
    op.create_table(
        "model_uploads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=True),
        sa.Column("created_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.Column("touched_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_model_uploads_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_uploads"),
    )
    op.create_index("ix_model_uploads_touched_at", "model_uploads", ["touched_at"])
    op.create_table(
        "model_upload_files",
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["model_uploads.id"], name="fk_model_upload_files_upload_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload_id", "name", name="pk_model_upload_files"),
    )
    op.create_index("ix_model_upload_files_sha256", "model_upload_files", ["sha256"])
    op.create_table(
        "model_upload_parts",
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["model_uploads.id"], name="fk_model_upload_parts_upload_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload_id", "sha256", "start", name="pk_model_upload_parts"),
    )
    op.create_table(
        "user_secrets",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("set_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_secrets_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "name", name="pk_user_secrets"),
    )


def downgrade() -> None:
    for table in ("user_secrets", "model_upload_parts", "model_upload_files", "model_uploads", "model_blobs", "blobs"):
        op.drop_table(table)
