"""How PostgreSQL goes about what the service asks of it: the plans of a piece of work, none of which stays."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from service import read_statements
from service.database import Database
from service.queries import JobFilter

_ABOUT = re.compile(r"\b(jobs|job_labels|artifacts|workers|users)\b")


def plans(database: Database, work: Callable[[Session], object]) -> list[str]:
    """The plans of the statements that ``work`` runs on jobs and what belongs to them; it is rolled back."""
    found: list[str] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE")) and _ABOUT.search(statement):
            with closing(cursor.connection.cursor()) as beside:
                beside.execute(f"EXPLAIN (COSTS OFF) {statement}", parameters)
                found.append("\n".join(row[0] for row in beside.fetchall()))

    with database.transaction() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", explain)
        work(session)
        event.remove(connection, "before_cursor_execute", explain)
        session.rollback()
    return found


def list_jobs(session: Session, wanted: JobFilter, *, after: str | None = None, limit: int = 50) -> Sequence[Any]:
    """Runs the statement of a page of a list."""
    statement = read_statements.page(wanted, after=after, limit=limit, known_versions={})
    return session.connection().exec_driver_sql(*statement).all()


def poll(session: Session, *job_ids: str) -> Sequence[Any]:
    """Runs the statement of so many polls at once, by nobody."""
    asked = {"digests": json.dumps(["none"]), "known_versions": json.dumps(dict.fromkeys(job_ids, 0))}
    return session.connection().exec_driver_sql(read_statements.JOBS, asked).all()


def indexes(found: list[str]) -> list[str]:
    """The indexes that plans use, by name."""
    return sorted(set(re.findall(r"(?:using|Bitmap Index Scan on) (\w+)", "\n".join(found))))


def read_whole(found: list[str]) -> list[str]:
    """The tables that plans read from end to end, and the indexes of which they read every entry."""
    text = "\n".join(found)
    return sorted({*re.findall(r"Seq Scan on (\w+)", text), *re.findall(r"Scan using (\w+) on \w+(?: \w+)?\n *Filter", text)})
