"""Files in the store that no other row names: of an upload that is not listed yet, or of what was deleted.

Their prefix is noted before the first of them is written, and by the transaction that deletes what named them; the transaction
that lists them takes the note back. So whatever breaks off, each file is named by a row, and the sweep removes the files of a
note that is older than anybody who may still write or list them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import clock
from service.database import Database
from service.errors import Unavailable
from service.store import Store
from service.tables import UnlistedFiles

_KEPT_SECONDS = 2 * 86_400.0
"""Longer than any upload takes to be listed, and than an attempt goes on that has lost its job."""
_LISTING_SECONDS = 3600.0
"""Longer than a transaction goes on that lists files, by the time at which it began."""
_MOST = 100
"""Notes that one sweep follows, at most."""


@contextmanager
def unlisted(database: Database, store: Store, prefix: str) -> Iterator[None]:
    """Files are stored under ``prefix`` and listed in the block; at its end they are removed unless they are listed.

    The note decides, not the error: a commit whose answer was lost may have happened, or may still be going on. While the
    database does not tell, they stay, and the sweep removes them one day.
    """
    database.run(lambda session: note(session, prefix))
    try:
        yield
    finally:
        if database.run(lambda session: session.get(UnlistedFiles, prefix, with_for_update=True)) is not None:
            store.remove_prefix(prefix)


def note(session: Session, prefix: str) -> None:
    """Says that no row names the files under this prefix, or will not once this transaction is committed."""
    remove_at = clock.now_sql(session) + clock.seconds_sql(_KEPT_SECONDS)
    noted = insert(UnlistedFiles).values(prefix=prefix, remove_at=remove_at)
    session.execute(noted.on_conflict_do_update(index_elements=[UnlistedFiles.prefix], set_={"remove_at": remove_at}))


def list_files(session: Session, prefix: str) -> None:
    """Takes the note back: this transaction stores the row that names the files. Raises Unavailable if they are being removed."""
    still_kept = (UnlistedFiles.prefix == prefix) & (UnlistedFiles.remove_at > clock.now_sql(session))
    if session.scalar(delete(UnlistedFiles).where(still_kept).returning(UnlistedFiles.prefix)) is None:
        raise Unavailable("storing this took so long that its files are being removed; send it again")


def to_remove(session: Session) -> list[str]:
    """Prefixes whose files are to be removed now. Who is listing some of them at this moment, or is about to, is left alone."""
    nobody_lists_since = clock.now_sql(session) - clock.seconds_sql(_LISTING_SECONDS)
    due = select(UnlistedFiles.prefix).where(UnlistedFiles.remove_at <= nobody_lists_since)
    return list(session.scalars(due.order_by(UnlistedFiles.remove_at).limit(_MOST).with_for_update(skip_locked=True)))


def forget(session: Session, prefix: str) -> None:
    """Removes the note of files that are removed."""
    session.execute(delete(UnlistedFiles).where(UnlistedFiles.prefix == prefix))
