"""Uploading a model's folder by its files: what broke off goes on, the same bytes are stored once, and nothing is left behind."""

import hashlib
import shutil
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from service import blobs, model_uploads
from service.client import Client, ClientError, Unreachable
from service.client.transport import Transport
from service.store import Store
from service.tables import Blob, Model, ModelUpload, UnlistedFiles
from tests.integration.api.conftest import Api, Team
from tests.integration.api.test_models import LABELS, folder, safetensors
from tests.integration.worker.conftest import until

LARGE = safetensors(weight=(100, 100))


@pytest.fixture(autouse=True)
def _no_blobs(api: Api, team: Team) -> None:
    """Those of the test before have no rows any more."""
    shutil.rmtree(api.store_folder / "blobs", ignore_errors=True)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def begin(client: httpx.Client, files: Mapping[str, bytes], **changes: Any) -> httpx.Response:
    listed = [{"name": name, "size": len(content), "sha256": digest(content)} for name, content in files.items()]
    return client.post("/v1/model-uploads", json={"name": "teacher", "files": listed} | changes)


def send(client: httpx.Client, upload_id: str, content: bytes, *, of: bytes | None = None, at: int = 0) -> httpx.Response:
    place = f"/v1/model-uploads/{upload_id}/files/{digest(content if of is None else of)}"
    return client.put(place, content=content, headers={"Upload-Offset": str(at)})


def send_all(client: httpx.Client, files: Mapping[str, bytes]) -> str:
    upload = begin(client, files).json()
    for content in files.values():
        if digest(content) in upload["missing"]:
            assert send(client, upload["id"], content).status_code == 204
    return str(upload["id"])


def finish(client: httpx.Client, upload_id: str) -> httpx.Response:
    return client.post(f"/v1/model-uploads/{upload_id}/finish")


def offset(client: httpx.Client, upload_id: str, content: bytes) -> int:
    return int(client.head(f"/v1/model-uploads/{upload_id}/files/{digest(content)}").headers["Upload-Offset"])


def kept(api: Api) -> list[Path]:
    """The files of blobs."""
    return [path for path in api.files() if path.is_file() and "blobs" in path.parts]


def written(into: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(content)
    return into


def made_old(session: Session) -> None:
    session.execute(update(Blob).values(created_at=func.now() - func.make_interval(0, 0, 0, 0, 2)))


def test_a_folder_teaches_and_its_bytes_are_stored_once(
    api: Api, team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = team.join("ana").headers["Authorization"].removeprefix("Bearer ")
    given = written(tmp_path / "given", folder(model__safetensors=LARGE) | {"onnx/README.md": b"", ".git/config": b"x"})
    sent: list[str] = []

    def upload(name: str) -> Any:
        with Client(api.url, key) as client:
            return client.upload_model(given, name=name, on_sent=lambda file, num_bytes, size: sent.append(file))

    first = upload("first")
    assert (first.task, first.classes) == ("image-classification", LABELS)
    assert sorted(sent) == sorted([*folder(), "onnx/README.md"]) == [file["name"] for file in first.model_dump()["files"]]
    files, sent[:] = kept(api), []
    second = upload("second")
    assert (sent, kept(api)) == ([], files)
    assert second.id != first.id
    with team.database.transaction() as session:
        row = session.get_one(Model, second.id)
    content = {file["name"]: b"".join(Store(api.settings.store).stream(file["path"])) for file in row.files}
    assert content == folder(model__safetensors=LARGE) | {"onnx/README.md": b""}

    answered = Transport.request

    def cut(self: Transport, method: str, *arguments: Any, **options: Any) -> httpx.Response:
        answer = answered(self, method, *arguments, **options)
        if method == "PUT" and sent[:1] != ["cut"]:
            sent[:] = ["cut"]
            raise Unreachable("the answer is lost")
        return answer

    monkeypatch.setattr(Transport, "request", cut)
    (given / "README.md").write_bytes(b"A third one.")
    assert upload("third").id not in (first.id, second.id)
    assert sent[0] == "cut"
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    (tmp_path / "empty" / ".git" / "config").write_bytes(b"x")
    with Client(api.url, key) as client, pytest.raises(ClientError, match="no file"):
        client.upload_model(tmp_path / "empty", name="empty")


def test_a_file_goes_on_where_it_broke_off(member: httpx.Client, api: Api) -> None:
    large = safetensors(weight=(1000, 500))
    files = folder(model__safetensors=large)
    upload_id = begin(member, files).json()["id"]
    assert finish(member, upload_id).status_code == 409

    # A connection that breaks in the middle of a body.
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = (
            f"PUT /v1/model-uploads/{upload_id}/files/{digest(large)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n"
            f"Authorization: {member.headers['Authorization']}\r\n\r\n"
        )
        connection.sendall(head.encode() + large[:1_500_000])
        until(lambda: any(path.stat().st_size >= 2**20 for path in api.staging_folder.rglob("received")))
    until(lambda: offset(member, upload_id, large) >= 2**20)
    here = offset(member, upload_id, large)

    wrong = send(member, upload_id, large[500:], of=large, at=500)
    assert wrong.status_code == 409
    assert f"{here} bytes of this file are here" in wrong.json()["detail"]
    assert send(member, upload_id, large[here : here + 9], of=large, at=here).headers["Upload-Offset"] == str(here + 9)

    again = begin(member, files)
    assert (again.status_code, again.json()["id"]) == (200, upload_id)
    assert {file["name"]: file["offset"] for file in again.json()["files"]}["model.safetensors"] == here + 9
    for content in files.values():
        start = offset(member, upload_id, content)
        assert send(member, upload_id, content[start:], of=content, at=start).headers["Upload-Offset"] == str(len(content))
    made = finish(member, upload_id)
    assert made.status_code == 201, made.text
    assert made.json()["id"].removeprefix("model_") == upload_id.removeprefix("upload_")
    assert finish(member, upload_id).json() == made.json()
    assert member.get(f"/v1/models/{made.json()['id']}/files/model.safetensors").content == large
    assert member.get(f"/v1/model-uploads/{upload_id}").status_code == 404
    assert not [path for path in api.files() if "uploads" in path.parts and path.is_file()]


@pytest.mark.parametrize("in_parts", [False, True])
def test_other_bytes_than_were_said_are_none(in_parts: bool, member: httpx.Client, api: Api) -> None:
    files = folder(model__safetensors=LARGE)
    upload_id = begin(member, files).json()["id"]
    damaged = bytes([LARGE[0] ^ 1]) + LARGE[1:]
    start = 100 if in_parts else 0
    if in_parts:
        assert send(member, upload_id, damaged[:start], of=LARGE).status_code == 204
    refused = send(member, upload_id, damaged[start:], of=LARGE, at=start)
    assert refused.status_code == 422
    assert "send it again from its beginning" in refused.json()["detail"]
    assert offset(member, upload_id, LARGE) == 0
    assert send(member, upload_id, LARGE + b"more", of=LARGE).status_code == 422
    assert send(member, upload_id, b"", of=b"unknown").status_code == 404
    assert kept(api) == []


@pytest.mark.parametrize(
    ("files", "pointer", "words"),
    [
        ({"../config.json": b"{}"}, "/files/0/name", "leads out of it"),
        ({"/etc/config.json": b"{}"}, "/files/0/name", "leads out of it"),
        ({"a\\..\\config.json": b"{}"}, "/files/0/name", "leads out of it"),
        ({"a/./config.json": b"{}"}, "/files/0/name", "no plain name"),
        ({".hidden": b"{}"}, "/files/0/name", "hidden"),
        ({"a": b"1", "a/b": b"2"}, "/files/1/name", "twice"),
        ({"a/b/c": b"1", "a": b"2"}, "/files/1/name", "twice"),
        ({"config.json": bytes(4_000_001)}, "/files", "more than the 4000000"),
    ],
)
def test_what_cannot_be_a_folder_is_refused_before_it_is_sent(
    files: dict[str, bytes], pointer: str, words: str, member: httpx.Client, api: Api
) -> None:
    refused = begin(member, files)
    assert refused.status_code == 422
    (fault,) = refused.json()["errors"]
    assert fault["pointer"] == pointer
    assert words in fault["message"]


def test_pickles_and_folders_of_others_are_refused_before_they_are_sent(member: httpx.Client, team: Team) -> None:
    for changes, words in (
        ({"pytorch_model.bin": b"\x80"}, "can run code"),
        ({"model.py": b""}, "leave these out"),
        ({"adapter_config.json": b"{}"}, "merge the adapter"),
    ):
        refused = begin(member, folder() | changes)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_file")
        assert words in refused.json()["detail"]
    upload_id = begin(member, folder()).json()["id"]
    other = team.join("ben")
    assert other.get(f"/v1/model-uploads/{upload_id}").status_code == 404
    assert send(other, upload_id, folder()["config.json"]).status_code == 404
    assert other.delete(f"/v1/model-uploads/{upload_id}").status_code == 404
    assert member.delete(f"/v1/model-uploads/{upload_id}").status_code == 204
    unusable = folder(labels__json=b'["0", "1"]')
    refused = finish(member, send_all(member, unusable))
    assert refused.status_code == 422
    assert "they must agree" in refused.json()["detail"]


def test_a_file_goes_with_the_last_model_that_has_it(member: httpx.Client, team: Team) -> None:
    first = finish(member, send_all(member, folder(model__safetensors=LARGE))).json()["id"]
    second = finish(member, send_all(member, folder(model__safetensors=LARGE, labels__json=None) | {"labels.json": LABELS_APART}))
    assert second.status_code == 201, second.text
    member.delete(f"/v1/models/{first}")

    def left() -> set[str]:
        with team.database.transaction() as session:
            made_old(session)
            blobs.sweep(session)
        with team.database.transaction() as session:
            return set(session.scalars(select(Blob.sha256)))

    shared = folder(model__safetensors=LARGE)
    assert left() == {digest(shared[name]) for name in shared if name != "labels.json"} | {digest(LABELS_APART)}
    assert member.get(f"/v1/models/{second.json()['id']}/files/model.safetensors").content == LARGE
    member.delete(f"/v1/models/{second.json()['id']}")
    assert left() == set()
    with team.database.transaction() as session:
        noted = session.scalars(select(UnlistedFiles.prefix)).all()
    assert sum(prefix.startswith("blobs/") for prefix in noted) == len(shared) + 1


LABELS_APART = b'["0", "1", "2", "3", "4", "5", "6", "7", "8", "nine"]'


def test_who_makes_a_model_and_who_forgets_its_files_do_not_meet(member: httpx.Client, team: Team) -> None:
    upload_id = send_all(member, folder())
    digests = [digest(content) for content in folder().values()]
    with team.database.transaction() as session:
        session.execute(update(ModelUpload).values(touched_at=func.now() - func.make_interval(0, 0, 0, 2)))
        made_old(session)
    with team.database.transaction() as making:
        assert len(blobs.stored(making, digests, hold=True)) == len(digests)
        with team.database.transaction() as session:
            blobs.sweep(session)  # which gives the upload up
            assert session.get(ModelUpload, upload_id) is None
            assert len(blobs.stored(session, digests)) == len(digests)
    with team.database.transaction() as session:
        blobs.sweep(session)
    assert finish(member, upload_id).status_code == 404

    # A file that was here as the upload began, and is not any more, is sent again.
    upload_id = send_all(member, folder())
    with team.database.transaction() as session:
        session.delete(session.get_one(Blob, digests[0]))
    refused = finish(member, upload_id)
    assert refused.status_code == 409
    assert member.get(f"/v1/model-uploads/{upload_id}").json()["missing"] == digests[:1]
    assert finish(member, send_all(member, folder())).status_code == 201


def test_the_same_bytes_that_come_at_one_time_are_stored_once(team: Team, api: Api, tmp_path: Path) -> None:
    content = written(tmp_path, {"weights": LARGE}) / "weights"
    store = Store(api.settings.store)

    def put(_: int) -> None:
        blobs.put(team.database, store, content, sha256=digest(LARGE))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))
    assert [path.read_bytes() for path in kept(api)] == [LARGE]
    with team.database.transaction() as session:
        stored = blobs.stored(session, [digest(LARGE)])
        assert session.get(UnlistedFiles, stored[digest(LARGE)].path) is None


def test_a_size_that_the_bytes_do_not_have_is_refused_whenever_they_came(member: httpx.Client) -> None:
    files = folder() | {"notes.txt": b"abcdef"}
    sizes = {"notes.txt": 11}
    listed = [{"name": name, "size": sizes.get(name, len(content)), "sha256": digest(content)} for name, content in files.items()]
    early = member.post("/v1/model-uploads", json={"name": "early", "files": listed}).json()["id"]
    assert finish(member, send_all(member, files)).status_code == 201
    late = member.post("/v1/model-uploads", json={"name": "late", "files": listed})
    for refused in (late, finish(member, early)):
        assert refused.status_code == 422
        assert "'notes.txt' has 6 bytes" in refused.json()["detail"]
    assert member.delete(f"/v1/model-uploads/{early}").status_code == 204


def test_a_piece_without_bytes_is_refused_and_the_file_goes_on(member: httpx.Client) -> None:
    upload_id = begin(member, folder(model__safetensors=LARGE)).json()["id"]
    assert send(member, upload_id, b"", of=LARGE).status_code == 422
    assert send(member, upload_id, LARGE[:100], of=LARGE).status_code == 204
    assert send(member, upload_id, b"", of=LARGE, at=100).status_code == 422
    assert send(member, upload_id, LARGE[100:200], of=LARGE, at=100).headers["Upload-Offset"] == "200"


def blocked(team: Team, count: int) -> bool:
    with team.database.transaction() as session:
        waits = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        return bool(session.scalar(waits) == count)


def test_who_asks_twice_at_a_time_is_answered_twice(member: httpx.Client, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    files = folder(model__safetensors=LARGE)
    upload_id = begin(member, files).json()["id"]
    assert send(member, upload_id, LARGE[:100], of=LARGE).status_code == 204

    def rest() -> httpx.Response:
        return send(member, upload_id, LARGE[100:], of=LARGE, at=100)

    put_before, others = model_uploads._put_before, [rest]

    def after_the_other(received: Path, store: Store, parts: list[str]) -> None:
        while others:  # the same rest comes a second time, and is done first
            assert others.pop()().status_code == 204
        put_before(received, store, parts)

    monkeypatch.setattr(model_uploads, "_put_before", after_the_other)
    assert rest().headers["Upload-Offset"] == str(len(LARGE))
    upload_id = send_all(member, files)
    with ThreadPoolExecutor(2) as pool:
        with team.database.transaction() as session:
            session.get_one(ModelUpload, upload_id, with_for_update=True)
            answers = [pool.submit(finish, member, upload_id) for _ in range(2)]
            until(lambda: blocked(team, 2))
        first, second = (answer.result() for answer in answers)
    assert (first.status_code, second.json()) == (201, first.json())


def test_a_sweep_that_forgets_files_of_a_model_that_is_made_meanwhile_is_told(member: httpx.Client, team: Team) -> None:
    made = finish(member, send_all(member, folder())).json()["id"]
    assert member.delete(f"/v1/models/{made}").status_code == 204
    with team.database.transaction() as session:
        made_old(session)
    with ThreadPoolExecutor(1) as pool:
        with team.database.transaction() as session:
            blobs.sweep(session)
            begun = begin(member, folder()).json()
            answer = pool.submit(finish, member, begun["id"])
            until(lambda: blocked(team, 1))
        assert answer.result().status_code == 409
    assert begun["missing"] == []
    assert len(begin(member, folder()).json()["missing"]) == len(folder())
    assert finish(member, send_all(member, folder())).status_code == 201


def test_a_user_who_has_begun_many_uploads_is_told_to_finish_one_or_give_one_up(api: Api, team: Team) -> None:
    ana, ben = team.join("ana"), team.join("ben")
    most = api.settings.max_unfinished_uploads
    begun = [begin(ana, folder(), name=f"teacher {number}").json()["id"] for number in range(most)]
    refused = begin(ana, folder(), name="one more")
    assert (refused.status_code, refused.json()["code"]) == (429, "upload_limit_reached")
    assert f"DELETE /v1/model-uploads/{begun[0]}" in refused.json()["detail"]
    assert begin(ana, folder(), name="teacher 3").json()["id"] == begun[3], "one that is begun may go on"
    assert begin(ben, folder()).status_code == 201
    assert ana.delete(f"/v1/model-uploads/{begun[0]}").status_code == 204
    assert begin(ana, folder(), name="one more").status_code == 201
