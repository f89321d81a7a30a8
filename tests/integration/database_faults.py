"""What befalls a PostgreSQL server, done to a real one for the length of a ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import psycopg


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Stops every process of the server (SIGSTOP): its sockets stay open, connections are even accepted, nobody answers."""
    with psycopg.connect(url) as connection:
        server = psutil.Process(connection.info.backend_pid).parent()
    assert server is not None
    server.suspend()
    processes = [server, *server.children()]
    try:
        for process in processes[1:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # a session that had ended before
                process.resume()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Lets the server take no writes, as one that another has taken over from; also on connections that are open."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        _set(connection, "ALTER SYSTEM SET default_transaction_read_only = on", url, "on")
        try:
            yield
        finally:
            _set(connection, "ALTER SYSTEM RESET default_transaction_read_only", url, "off")


def terminate(url: str) -> int:
    """Ends every other session of the address's database; returns how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    return sum(row[0] for row in ended)


def _set(connection: psycopg.Connection, statement: str, url: str, value: str) -> None:
    connection.execute(statement.encode())
    connection.execute("SELECT pg_reload_conf()")
    while True:
        with psycopg.connect(url) as other:
            row = other.execute("SHOW default_transaction_read_only").fetchone()
        if row == (value,):
            return
