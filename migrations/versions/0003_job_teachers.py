"""A job may learn from several models."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_teachers",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_teachers_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_job_teachers_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "model_id", name=op.f("pk_job_teachers")),
    )
    op.create_index(op.f("ix_job_teachers_model_id"), "job_teachers", ["model_id"], unique=False)
    op.execute("INSERT INTO job_teachers SELECT id, teacher_model_id FROM jobs WHERE teacher_model_id IS NOT NULL")
    op.drop_constraint("fk_jobs_teacher_model_id", "jobs", type_="foreignkey")
    op.drop_index("ix_jobs_teacher", table_name="jobs")
    op.drop_column("jobs", "teacher_model_id")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("teacher_model_id", sa.Text(), nullable=True))
    op.create_index("ix_jobs_teacher", "jobs", ["teacher_model_id"], postgresql_where=sa.text("teacher_model_id IS NOT NULL"))
    op.create_foreign_key("fk_jobs_teacher_model_id", "jobs", "models", ["teacher_model_id"], ["id"], ondelete="SET NULL")
    op.execute("UPDATE jobs SET teacher_model_id = (SELECT min(model_id) FROM job_teachers WHERE job_teachers.job_id = jobs.id)")
    op.drop_table("job_teachers")
