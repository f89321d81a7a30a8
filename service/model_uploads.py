"""Uploads of a model's folder, file by file and in parts, so that what broke off goes on where it was.

Of a file that is not whole its parts are in the store under the upload's own prefix, which is noted as unlisted all the time:
they are removed some days after the last of them came, whatever becomes of the upload. A whole file is a blob. The last step
makes a model of the blobs; it can be repeated, because the model's id is that of the upload.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service import blobs, clock
from service.archives import safe_path
from service.database import Database
from service.errors import Conflict, FieldError, InvalidFile, InvalidInput, NotFound, UploadLimitReached
from service.ids import new_id
from service.model_folder import refuse_unsafe
from service.models import MAX_FILES, describe
from service.store import Store, media_type
from service.tables import Blob, Model, ModelBlob, ModelUpload, ModelUploadFile, ModelUploadPart, User
from service.unlisted_files import note

_HEAD_BYTES = 256 * 2**20
"""Of a larger file so much is looked at: more than the header of any file of weights has."""
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class NewFile:
    """A file of the folder, as its sender describes it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class UploadState:
    """An upload, and how much of each of its contents is here, by SHA-256."""

    upload: ModelUpload
    files: Sequence[ModelUploadFile]
    offsets: dict[str, int]
    whole: dict[str, Blob]
    """Contents that are here whole."""

    def size(self, sha256: str) -> int:
        """The size of a file. Raises NotFound."""
        for file in self.files:
            if file.sha256 == sha256:
                return file.size
        raise NotFound(f"the upload {self.upload.id} has no file of the SHA-256 {sha256!r:.80}")

    @property
    def missing(self) -> list[str]:
        """The SHA-256 of each file that is not here whole, as an empty one is not until it came."""
        return list(dict.fromkeys(file.sha256 for file in self.files if file.sha256 not in self.whole))


def begin(
    session: Session,
    files: Sequence[NewFile],
    *,
    owner_id: str,
    name: str,
    task: str | None,
    max_bytes: int,
    most_unfinished: int,
) -> tuple[UploadState, bool]:
    """Begins an upload, or finds the one of the same files that the caller has begun; returns whether it is new.

    Raises:
        InvalidInput: a name leads out of the folder, two files have one name, or they are too many or too large.
        InvalidFile: no folder with such files can be used.
        UploadLimitReached: the caller has begun as many as permitted.
    """
    _check(files, max_bytes)
    wanted = {(file.name, file.size, file.sha256) for file in files}
    begun = select(ModelUpload).where(
        ModelUpload.owner_id == owner_id, ModelUpload.name == name, ModelUpload.task.is_not_distinct_from(task)
    )
    for upload in session.scalars(begun.order_by(ModelUpload.id)).all():
        state = _state(session, upload)
        if {(file.name, file.size, file.sha256) for file in state.files} == wanted:
            upload.touched_at = clock.now(session)
            return state, False
    _require_room(session, owner_id, most_unfinished)
    upload = ModelUpload(id=new_id("upload"), owner_id=owner_id, name=name, task=task)
    session.add(upload)
    session.flush()
    session.refresh(upload)
    session.add_all(ModelUploadFile(upload_id=upload.id, name=file.name, sha256=file.sha256, size=file.size) for file in files)
    session.flush()
    note(session, _prefix(upload.id))
    state = _state(session, upload)
    _refuse_other_sizes(state)
    return state, True


def find(session: Session, upload_id: str, *, owner_id: str, lock: bool = False) -> UploadState:
    """Reads an upload of this user. Raises NotFound, also for somebody else's."""
    upload = session.get(ModelUpload, upload_id, with_for_update=lock, populate_existing=True)
    if upload is None or upload.owner_id != owner_id:
        raise NotFound(f"you have no upload {upload_id!r:.80}; it is finished, or nothing came of it for a day")
    return _state(session, upload, hold=lock)


def add(database: Database, store: Store, upload_id: str, sha256: str, received: Path, *, start: int, owner_id: str) -> int:
    """Adds the bytes of ``received`` to a file, from ``start`` on; returns how much of it is here then.

    Raises:
        Conflict: it is not at ``start``; the message says where.
        InvalidFile: it is whole, and has another SHA-256: it is to be sent again.
    """
    state = database.run(lambda session: find(session, upload_id, owner_id=owner_id))
    size, num_bytes = state.size(sha256), received.stat().st_size
    require_offset(state, sha256, start)
    if sha256 in state.whole:
        return size
    if start + num_bytes > size:
        raise InvalidFile(f"{start + num_bytes} bytes came of a file that was said to have {size}")
    if start + num_bytes < size:
        if not num_bytes:
            raise InvalidFile(f"no byte came of a file of which {start} of {size} are here; has it become shorter?")
        _keep_part(database, store, state, sha256, received, start=start)
        return start + num_bytes
    digest = None
    with suppress(NotFound):  # its parts: the same rest, sent twice at a time, has made a blob of them
        if start:
            _put_before(received, store, database.run(lambda session: _parts(session, upload_id, sha256)))
        with received.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == sha256:
        blobs.put(database, store, received, sha256=sha256)
    elif database.run(lambda session: sha256 in blobs.stored(session, [sha256])):
        return size
    parts = database.run(lambda session: _drop_parts(session, upload_id, sha256))
    store.remove(parts)
    if digest != sha256:
        raise InvalidFile(f"the file that came has the SHA-256 {digest}, not {sha256}; send it again from its beginning")
    return size


def require_offset(state: UploadState, sha256: str, start: int) -> None:
    """Raises Conflict unless so much of the file is here."""
    state.size(sha256)
    if state.offsets[sha256] != start:
        raise Conflict(f"{state.offsets[sha256]} bytes of this file are here: go on from there, not from {start}")


def finish(database: Database, store: Store, upload_id: str, *, owner_id: str, folder: Path) -> Model:
    """Makes a model of the files; ``folder`` is an empty one to look at them in. Repeated, it returns the same model.

    Raises:
        Conflict: a file is missing.
        InvalidFile: the network cannot be used.
    """
    model_id = upload_id.replace("upload_", "model_", 1)
    known = database.run(lambda session: session.get(Model, model_id))
    if known is not None and known.owner_id == owner_id:
        return known

    state = database.run(lambda session: _whole(session, upload_id, owner_id))
    for file in state.files:
        _look(store, state.whole[file.sha256].path, folder / file.name, size=file.size)
    names = [Path(file.name) for file in state.files]
    model = describe(folder, names, owner_id=owner_id, name=state.upload.name)
    if state.upload.task is not None and model.task != state.upload.task:
        raise InvalidFile(f"the folder holds a network for {model.task}, not for {state.upload.task}", param="/task")

    def keep(session: Session) -> Model:
        try:
            whole = _whole(session, upload_id, owner_id, lock=True)
        except NotFound:  # the same request, sent again by somebody who got no answer, may have come to its end first
            if (made := session.get(Model, model_id)) is None:
                raise
            return made
        model.id = model_id
        model.files = [
            {
                "name": file.name,
                "path": whole.whole[file.sha256].path,
                "size": file.size,
                "sha256": file.sha256,
                "media_type": media_type(file.name),
            }
            for file in whole.files
        ]
        session.add(model)
        session.flush()
        session.add_all(ModelBlob(model_id=model_id, sha256=sha256) for sha256 in whole.whole)
        session.delete(whole.upload)
        return model

    made = database.run(keep)
    with suppress(OSError):  # what is left of its parts, or comes late, the sweep removes: they stay noted
        store.remove_prefix(_prefix(upload_id))
    return made


def abandon(session: Session, upload_id: str, *, owner_id: str) -> str:
    """Forgets an upload; returns the store's prefix of its parts. Raises NotFound."""
    session.delete(find(session, upload_id, owner_id=owner_id, lock=True).upload)
    return _prefix(upload_id)


def _check(files: Sequence[NewFile], max_bytes: int) -> None:
    faults: list[FieldError] = []
    seen: set[str] = set()
    folders: set[str] = set()
    sizes: dict[str, int] = {}
    for index, file in enumerate(files):
        try:
            path = safe_path(file.name, "the folder")
        except InvalidFile as error:
            faults.append(FieldError(pointer=f"/files/{index}/name", message=error.detail))
            continue
        if path is None or path.as_posix() != file.name:
            message = f"{file.name!r:.200} is a hidden file, or no plain name: leave it out"
            faults.append(FieldError(pointer=f"/files/{index}/name", message=message))
        if file.name in seen or file.name in folders or any(parent.as_posix() in seen for parent in Path(file.name).parents):
            faults.append(FieldError(pointer=f"/files/{index}/name", message=f"{file.name!r:.200} is there twice"))
        if sizes.setdefault(file.sha256, file.size) != file.size:
            message = "a file of the same SHA-256 has another size"
            faults.append(FieldError(pointer=f"/files/{index}/size", message=message))
        seen.add(file.name)
        folders |= {parent.as_posix() for parent in Path(file.name).parents}
    if len(files) > MAX_FILES:
        faults.append(FieldError(pointer="/files", message=f"at most {MAX_FILES:,} files"))
    if (total := sum(file.size for file in files)) > max_bytes:
        faults.append(
            FieldError(pointer="/files", message=f"{total} bytes are more than the {max_bytes} that this service takes")
        )
    if faults:
        raise InvalidInput(faults)
    refuse_unsafe([Path(file.name) for file in files])


def _require_room(session: Session, owner_id: str, most: int) -> None:
    """Raises UploadLimitReached unless the user may begin one more upload; no other begins one of theirs until the commit."""
    session.execute(select(User.id).where(User.id == owner_id).with_for_update(key_share=True))
    own = select(ModelUpload.id).where(ModelUpload.owner_id == owner_id)
    begun = session.scalars(own.order_by(ModelUpload.touched_at, ModelUpload.id)).all()
    if len(begun) >= most:
        raise UploadLimitReached(
            f"{len(begun)} of your uploads are not finished, and {most} may be: finish one, or give up the one that rests for "
            f"longest by DELETE /v1/model-uploads/{begun[0]}; one that rests for a day is given up by itself"
        )


def _state(session: Session, upload: ModelUpload, *, hold: bool = False) -> UploadState:
    files = session.scalars(
        select(ModelUploadFile).where(ModelUploadFile.upload_id == upload.id).order_by(ModelUploadFile.name)
    ).all()
    arrived = session.execute(
        select(ModelUploadPart.sha256, func.sum(ModelUploadPart.size))
        .where(ModelUploadPart.upload_id == upload.id)
        .group_by(ModelUploadPart.sha256)
    )
    offsets = dict.fromkeys((file.sha256 for file in files), 0) | {sha256: int(size) for sha256, size in arrived}
    whole = blobs.stored(session, offsets, hold=hold)
    return UploadState(upload, files, offsets | {sha256: blob.size for sha256, blob in whole.items()}, whole)


def _whole(session: Session, upload_id: str, owner_id: str, *, lock: bool = False) -> UploadState:
    """An upload of which nothing is missing. Raises Conflict."""
    state = find(session, upload_id, owner_id=owner_id, lock=lock)
    if missing := [file.name for file in state.files if file.sha256 not in state.whole]:
        raise Conflict(f"{', '.join(missing[:5])}: not all of it is here yet; send the rest first")
    _refuse_other_sizes(state)
    return state


def _refuse_other_sizes(state: UploadState) -> None:
    for file in state.files:
        if file.sha256 in state.whole and (size := state.whole[file.sha256].size) != file.size:
            raise InvalidFile(f"{file.name!r:.200} has {size} bytes, by its SHA-256, and not {file.size}: begin again with that")


def _keep_part(database: Database, store: Store, state: UploadState, sha256: str, received: Path, *, start: int) -> None:
    upload_id, owner_id = state.upload.id, state.upload.owner_id
    key = f"{_prefix(upload_id)}/{sha256}/{start}-{new_id('part')}"
    database.run(lambda session: note(session, _prefix(upload_id)))  # for as long as it takes from now on
    store.put(received, key)

    def keep(session: Session) -> None:
        current = find(session, upload_id, owner_id=owner_id, lock=True)
        require_offset(current, sha256, start)
        size = received.stat().st_size
        session.add(ModelUploadPart(upload_id=upload_id, sha256=sha256, start=start, size=size, path=key))
        current.upload.touched_at = clock.now(session)

    database.run(keep)


def _parts(session: Session, upload_id: str, sha256: str) -> list[str]:
    query = select(ModelUploadPart.path).where(ModelUploadPart.upload_id == upload_id, ModelUploadPart.sha256 == sha256)
    return list(session.scalars(query.order_by(ModelUploadPart.start)))


def _drop_parts(session: Session, upload_id: str, sha256: str) -> list[str]:
    which = (ModelUploadPart.upload_id == upload_id, ModelUploadPart.sha256 == sha256)
    upload = session.get(ModelUpload, upload_id, with_for_update=True)
    if upload is not None:
        upload.touched_at = clock.now(session)
    return list(session.scalars(delete(ModelUploadPart).where(*which).returning(ModelUploadPart.path)))


def _put_before(received: Path, store: Store, parts: Iterable[str]) -> None:
    """Makes ``received`` the whole file: its parts, and then what it has."""
    whole = received.with_name(received.name + ".whole")
    with whole.open("xb") as file:
        for key in parts:
            for chunk in store.stream(key):
                file.write(chunk)
        with received.open("rb") as rest:
            while chunk := rest.read(_CHUNK_BYTES):
                file.write(chunk)
    whole.replace(received)


def _look(store: Store, key: str, target: Path, *, size: int) -> None:
    """Makes a file of that size whose beginning is that of the stored one: as much as its check reads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        for chunk in store.stream(key, length=min(size, _HEAD_BYTES)):
            file.write(chunk)
        file.truncate(size)


def _prefix(upload_id: str) -> str:
    return f"uploads/{upload_id}"
