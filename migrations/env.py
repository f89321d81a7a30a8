"""Alembic's entry: one connection, one transaction, one migrating process at a time."""

from alembic import context
from sqlalchemy import text

from service.tables import Table

_MIGRATION_LOCK = 7_445_001
"""Advisory lock key: two processes that migrate at once wait for each other."""

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=Table.metadata, compare_type=True, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        context.run_migrations()
