"""The same bytes may be stored once for each task, and have many target columns."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BY_COLUMNS = "uq_datasets_sha256_input_column_target_column"
_BY_CONTENT = "uq_datasets_content"


def upgrade() -> None:
    op.create_index(_BY_CONTENT, "datasets", ["sha256", "task", "input_column", sa.text("md5(target_column)")], unique=True)
    op.drop_constraint(_BY_COLUMNS, "datasets", type_="unique")


def downgrade() -> None:
    op.create_unique_constraint(_BY_COLUMNS, "datasets", ["sha256", "input_column", "target_column"])
    op.drop_index(_BY_CONTENT, table_name="datasets")
