"""Files that uploaded models share: each content is stored once, and stays while a model, or an upload, names it.

Invariants: a blob's file is whole, has the SHA-256 of its row, and lies under a key that no other blob had or will have; so who
stores the same content at the same time as another, or as the sweep forgets it, is never left with a row without a file.
"""

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import clock
from service.database import Database
from service.ids import new_id
from service.store import Store
from service.tables import Blob, ModelBlob, ModelUpload, ModelUploadFile
from service.unlisted_files import list_files, note, unlisted

_UPLOAD_SECONDS = 86_400.0
"""After so long a silence an upload is given up."""
_LEAST_AGE_SECONDS = 3600.0
"""No younger blob is forgotten: the upload that it came with is about to become a model."""
_MOST = 100
"""Of each kind that one sweep forgets, at most."""


class _StoredMeanwhile(Exception):
    """Another one has stored the same content."""


def put(database: Database, store: Store, path: Path, *, sha256: str) -> None:
    """Stores a file whose SHA-256 the caller has checked, unless its content is there already."""
    if database.run(lambda session: sha256 in stored(session, [sha256])):
        return
    key = f"blobs/{sha256[:2]}/{sha256}/{new_id('blob')}"

    def keep(session: Session) -> None:
        list_files(session, key)
        row = insert(Blob).values(sha256=sha256, path=key, size=path.stat().st_size)
        if session.scalar(row.on_conflict_do_nothing().returning(Blob.sha256)) is None:
            raise _StoredMeanwhile

    try:
        with unlisted(database, store, key):
            store.put(path, key)
            database.run(keep)
    except _StoredMeanwhile:
        return


def stored(session: Session, digests: Iterable[str], *, hold: bool = False) -> dict[str, Blob]:
    """Finds the blobs of these contents, by SHA-256; with ``hold`` none of them is forgotten before the transaction ends."""
    query = select(Blob).where(Blob.sha256.in_(set(digests))).order_by(Blob.sha256)
    found = session.scalars(query.with_for_update(read=True, key_share=True) if hold else query)
    return {blob.sha256: blob for blob in found}


def sweep(session: Session) -> None:
    """Forgets uploads that nobody goes on with, and blobs that no row names; the files are removed as unlisted ones."""
    now = clock.now_sql(session)
    silent = select(ModelUpload.id).where(ModelUpload.touched_at < now - clock.seconds_sql(_UPLOAD_SECONDS)).limit(_MOST)
    session.execute(delete(ModelUpload).where(ModelUpload.id.in_(silent.with_for_update(skip_locked=True))))
    is_named = exists().where(ModelBlob.sha256 == Blob.sha256) | exists().where(ModelUploadFile.sha256 == Blob.sha256)
    unnamed = select(Blob.sha256).where(Blob.created_at < now - clock.seconds_sql(_LEAST_AGE_SECONDS), ~is_named).limit(_MOST)
    held = session.scalars(unnamed.with_for_update(skip_locked=True)).all()
    # Once more, now that nobody can begin to name them: a model may have been stored since the first look began.
    still = select(Blob).where(Blob.sha256.in_(held), ~is_named).execution_options(populate_existing=True)
    for blob in session.scalars(still).all():
        note(session, blob.path)
        session.delete(blob)
    session.flush()
