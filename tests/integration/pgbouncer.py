"""PgBouncer, Debian's, in front of a PostgreSQL server of the tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from service.embedded.processes import Child
from service.embedded.servers import POSTGRES_USER
from tests.conftest import own_folder, required_program, reserved_port

POOL_SIZE = 3
"""Sessions with the server in the modes that share them: fewer than the service has connections."""
_START_SECONDS = 20


class PgBouncer:
    """One process; ``url`` is the address of a database through it."""

    def __init__(self, child: Child, port: int) -> None:
        self._child, self._port = child, port

    def url(self, database_url: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}{urlsplit(database_url).path}"

    def start(self) -> None:
        self._child.start()
        self._child.wait_until(self._answers, timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        self._child.stop(grace_seconds=_START_SECONDS)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url("/pgbouncer"), autocommit=True) as connection:
                connection.execute("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def pgbouncer(postgres_url: str, mode: str) -> Iterator[PgBouncer]:
    """Runs one with its settings as they come, but for the number of its sessions."""
    program = required_program("pgbouncer")
    (sockets,) = parse_qs(urlsplit(postgres_url).query)["host"]
    with own_folder() as folder, reserved_port() as port:
        folder.chmod(0o755)
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            f"""
            [databases]
            * = host={sockets} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            admin_users = postgres
            pool_mode = {mode}
            default_pool_size = {60 if mode == "session" else POOL_SIZE}
            """
        )
        user = "" if Path(sockets).owner() == folder.owner() else POSTGRES_USER  # it does not run as root, as PostgreSQL
        server = PgBouncer(Child("PgBouncer", [program, str(configuration)], log=folder / "log.txt", user=user), port)
        server.start()
        try:
            yield server
        finally:
            server.stop()
