"""Files that are stored before the row that names them is committed."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.database import Database
from service.store import Store
from service.tables import Dataset, Model


@contextmanager
def kept_if_listed(database: Database, store: Store, prefix: str, row: type[Dataset] | type[Model], id_: str) -> Iterator[None]:
    """Files are stored and listed in the block; at its end those under ``prefix`` are removed unless their row is there.

    The row decides, not the error: a commit whose answer was lost may have happened. While the database does not tell, they stay.
    """
    try:
        yield
    finally:
        if database.run(lambda session: session.get(row, id_)) is None:
            store.remove_prefix(prefix)
