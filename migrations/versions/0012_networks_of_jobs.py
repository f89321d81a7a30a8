"""A job may leave its teacher beside its student; what a network is, what it was made of and a name that specs know it by."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("part", sa.Text(), server_default="student", nullable=False))
    op.create_check_constraint(op.f("ck_models_part"), "models", "part IN ('student', 'teacher')")
    op.drop_constraint("uq_models_job_id", "models")
    op.create_unique_constraint("uq_models_job_id_part", "models", ["job_id", "part"])
    op.add_column("models", sa.Column("handle", sa.Text(), nullable=True))
    op.create_unique_constraint("uq_models_handle", "models", ["handle"])
    op.add_column("models", sa.Column("parameters", sa.BigInteger(), nullable=True))
    for name in ("dtype", "base", "licence"):
        op.add_column("models", sa.Column(name, sa.Text(), nullable=True))
    op.create_index(op.f("ix_job_teachers_model_id_job_id"), "job_teachers", ["model_id", "job_id"])
    op.drop_index(op.f("ix_job_teachers_model_id"), "job_teachers")
    op.create_table(
        "job_sources",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_sources_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "source", name=op.f("pk_job_sources")),
    )


def downgrade() -> None:
    op.drop_table("job_sources")
    op.create_index(op.f("ix_job_teachers_model_id"), "job_teachers", ["model_id"])
    op.drop_index(op.f("ix_job_teachers_model_id_job_id"), "job_teachers")
    op.execute("DELETE FROM models WHERE part = 'teacher'")
    for name in ("licence", "base", "dtype", "parameters", "handle"):
        op.drop_column("models", name)
    op.drop_constraint("uq_models_job_id_part", "models")
    op.create_unique_constraint("uq_models_job_id", "models", ["job_id"])
    op.drop_column("models", "part")
