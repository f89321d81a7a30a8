"""Which store is the one of a database: its id is in a row here and in the store's marker.

A new store is set up once, at the first contact. One of a version without markers is taken for the store of the database if it
holds files that the database names. From then on only :func:`adopt` puts another in its place.
"""

import logging

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database import Database
from service.errors import Conflict
from service.ids import new_id
from service.part_errors import PartAway, is_of_other_schema, is_passing, part_of
from service.store import MARKER, Store
from service.tables import Artifact, Dataset, Model, StoreIdentity

_NUM_FILES = 10
"""The newest of each kind that are looked for in a store without a marker."""

logger = logging.getLogger(__name__)


def store_of(database: Database, url: str) -> Store:
    """The store at ``url``, away unless it is the one of this database. A new one is set up when it is first used."""

    def expected_id(store: Store) -> str:
        try:
            return _expected_id(database, store)
        except Exception as error:
            if part_of(error) != "the database" or not (is_passing(error) or is_of_other_schema(error)):
                raise
            raise PartAway("the database does not tell which store is its own") from error

    return Store(url, id_of=expected_id)


def look_for(store: Store) -> None:
    """Sets the store up if it is new, and logs what is wrong with it; a process starts without it too."""
    try:
        store.ping()
    except OSError as error:
        logger.warning("the store is away: %s", error)


def adopt(database: Database, url: str, *, although_files_are_missing: bool = False) -> str:
    """Makes the store at ``url`` that of the database; returns its id.

    Raises:
        Conflict: it holds none of the newest files that the database names.
        OSError: it cannot be used.
    """
    store = Store(url)
    if not although_files_are_missing and _lacks_files(database, store):
        raise Conflict(f"{url} holds none of the newest files that the database names")
    found = store.marker()
    if found is None:
        found = new_id("store")
        store.mark(found)
    values = {"id": found, "is_set_up": True}
    row = insert(StoreIdentity).values(values)
    database.run(lambda session: session.execute(row.on_conflict_do_update(index_elements=["one"], set_=values)))
    return found


def _expected_id(database: Database, store: Store) -> str:
    known = database.run(_recorded)
    if known is not None and known.is_set_up:
        return known.id
    found = store.marker()
    if found is None and _lacks_files(database, store):
        raise PartAway(f"{store.url} has no file {MARKER}, and none of the newest files that the database names")
    recorded = database.run(lambda session: _record(session, found or new_id("store")))
    if found is None:
        store.mark(recorded)
    if found in {None, recorded}:
        database.run(lambda session: session.execute(update(StoreIdentity).values(is_set_up=True)))
    return recorded


def _recorded(session: Session) -> StoreIdentity | None:
    return session.scalar(select(StoreIdentity))


def _record(session: Session, store_id: str) -> str:
    """The first one wins, whatever store it saw."""
    session.execute(insert(StoreIdentity).values(id=store_id).on_conflict_do_nothing())
    return session.scalars(select(StoreIdentity.id)).one()


def _lacks_files(database: Database, store: Store) -> bool:
    keys = database.run(_newest_keys)
    return bool(keys) and not store.holds_any(keys)


def _newest_keys(session: Session) -> list[str]:
    artifacts = session.scalars(select(Artifact.path).order_by(Artifact.job_id.desc()).limit(_NUM_FILES))
    datasets = session.execute(select(Dataset.path, Dataset.files).order_by(Dataset.id.desc()).limit(_NUM_FILES))
    models = session.scalars(select(Model.files).order_by(Model.id.desc()).limit(_NUM_FILES))
    found = [*artifacts, *(file["path"] for files in models for file in files)]
    for path, files in datasets:
        found += [path] if files is None else [file["path"] for file in files]
    return found
