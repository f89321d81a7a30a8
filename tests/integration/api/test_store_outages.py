"""The store away, frozen, full or read-only, no room for an upload: 503 with the reason, nothing half-stored or elsewhere."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from random import Random

import httpx
import pytest
from sqlalchemy import select

from service.ids import new_id
from service.settings import Settings
from service.store_identity import store_of
from service.tables import Model, User
from tests.faults.disks import Disk, disk, hanging
from tests.faults.waiting import until
from tests.integration.api.conftest import Api, Team, submit

_MORE_THAN_ALL_THREADS = 44

TEXTS = [b"%064d" % number for number in range(25_000)]
NOISE = [Random(number).randbytes(32).hex().encode() for number in range(25_000)]


def rows(texts: list[bytes]) -> bytes:
    """A CSV: that of ``NOISE`` is more than the store's disk holds, that of ``TEXTS`` is so as a CSV alone."""
    return b"text,label\n" + b"".join(b"%s,%d\n" % (text, number % 2) for number, text in enumerate(texts))


SMALL = b"text,label\na,0\nb,1\n"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Disk]]:
    folder = tmp_path_factory.mktemp("disks")
    with disk(folder / "store", mebibytes=1) as store, disk(folder / "scratch", mebibytes=16) as scratch:
        yield {"store": store, "scratch": scratch}


@pytest.fixture(scope="module")
def settings(settings: Settings, disks: dict[str, Disk]) -> Settings:
    """The store's root is within its disk, so that it can be moved away."""
    return settings.model_copy(
        update={"store": f"file://{disks['store'].folder}/root", "scratch": disks["scratch"].folder, "store_seconds": 3}
    )


Fault = Callable[[Disk], AbstractContextManager[str]]
"""What happens to a disk inside the block, which gets the words for it."""


def upload(client: httpx.Client, content: bytes = SMALL) -> httpx.Response:
    return client.post("/v1/datasets", data={"name": "x", "task": "text-classification"}, files={"file": ("x.csv", content)})


def files(api: Api) -> list[str]:
    return [path.name for path in api.files() if path.is_file()]


def assert_unavailable(answer: httpx.Response, words: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert words in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


@contextmanager
def away(api: Api, *, leaving_an_empty_folder: bool) -> Iterator[None]:
    root = api.store_folder
    aside = root.rename(root.with_name("aside"))
    if leaving_an_empty_folder:
        root.mkdir()
    yield
    if leaving_an_empty_folder:
        root.rmdir()  # it is still empty
    assert not root.exists()
    aside.rename(root)


@pytest.mark.parametrize("leaving_an_empty_folder", [False, True])
def test_a_store_that_is_away_is_503_and_as_it_was_afterwards(
    api: Api, member: httpx.Client, leaving_an_empty_folder: bool
) -> None:
    dataset = upload(member).json()["id"]
    job = submit(member)["id"]
    assert member.post(f"/v1/jobs/{job}/cancel").status_code == 200
    with away(api, leaving_an_empty_folder=leaving_an_empty_folder):
        assert_unavailable(upload(member, SMALL + b"c,0\n"), "the store is away")
        assert_unavailable(member.get(f"/v1/datasets/{dataset}"), "the store cannot be used")
        assert_unavailable(member.delete(f"/v1/datasets/{dataset}"), "the store cannot be used")
        assert_unavailable(member.delete(f"/v1/jobs/{job}"), "the store cannot be used")
        ready = member.get("/readyz").json()
        assert (ready["status"], ready["checks"]["store"]["ok"]) == ("degraded", False)
        submit(member)
    assert member.get("/readyz").json()["status"] == "ready"
    assert len(member.get(f"/v1/datasets/{dataset}").json()["samples"]) == 2
    assert member.delete(f"/v1/jobs/{job}").status_code == 204
    assert member.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert files(api) == []


REQUESTS_THAT_NEED_THE_STORE: dict[str, Callable[[httpx.Client, str, str], httpx.Response]] = {
    "a dataset's first rows": lambda client, dataset, _: client.get(f"/v1/datasets/{dataset}"),
    "a deletion": lambda client, dataset, _: client.delete(f"/v1/datasets/{dataset}"),
    "an upload": lambda client, *_: upload(client, SMALL + b"d,0\n"),
    "a download": lambda client, _, model: client.get(f"/v1/models/{model}/files/weights"),
}


@pytest.mark.parametrize("name", REQUESTS_THAT_NEED_THE_STORE)
def test_a_store_that_hangs_is_503_for_those_who_need_it_and_nothing_for_the_others(
    api: Api, team: Team, member: httpx.Client, name: str
) -> None:
    request, dataset, model = REQUESTS_THAT_NEED_THE_STORE[name], upload(member).json()["id"], add_model(team, api)
    with ThreadPoolExecutor(_MORE_THAN_ALL_THREADS) as pool:
        with hanging(api.store_folder):
            for answer in pool.map(lambda _: request(member, dataset, model), range(_MORE_THAN_ALL_THREADS)):
                assert_unavailable(answer, "the store does not answer at this moment")
            job = submit(member)["id"]
            assert member.get(f"/v1/jobs/{job}/explain").status_code == 200
            assert member.get(f"/v1/models/{model}").json()["name"] == "x"
        until(lambda: member.get(f"/v1/datasets/{dataset}").status_code == 200, "it is still away", timeout_seconds=60)
    assert member.get(f"/v1/models/{model}/files/weights").content == b"x"
    for path in (f"/v1/datasets/{dataset}", f"/v1/models/{model}"):
        assert member.delete(path).status_code == 204


def add_model(team: Team, api: Api) -> str:
    model_id, source = new_id("model"), api.staging_folder / "weights"
    source.write_bytes(b"x")
    file = store_of(team.database, api.settings.store).put(source, f"models/{model_id}/weights")
    source.unlink()
    with team.database.transaction() as session:
        owner = session.scalars(select(User.id).where(User.name == "ada")).one()
        values = {"task": "causal-lm", "classes": [], "input_shape": [], "files": [asdict(file)]}
        session.add(Model(id=model_id, owner_id=owner, name="x", **values))
    return model_id


@contextmanager
def full(where: Disk) -> Iterator[str]:
    with where.full():
        yield "No space left on device"


@contextmanager
def read_only(where: Disk) -> Iterator[str]:
    subprocess.run(["mount", "-o", "remount,ro", where.folder], check=True)
    yield "Read-only file system"
    subprocess.run(["mount", "-o", "remount,rw", where.folder], check=True)


@pytest.fixture(scope="module")
def own_disks(disks: dict[str, Disk]) -> dict[str, Disk]:
    if not all(disk.is_own for disk in disks.values()):
        pytest.skip("disks are mounted by root alone")
    return disks


@pytest.mark.parametrize("where", ["store", "scratch"])
@pytest.mark.parametrize("fault", [full, read_only])
def test_a_disk_that_takes_no_file_is_503_with_the_reason_and_nothing_is_half_stored(
    api: Api, member: httpx.Client, own_disks: dict[str, Disk], fault: Fault, where: str
) -> None:
    with fault(own_disks[where]) as reason:
        assert_unavailable(upload(member), f"the upload cannot be kept at this moment: {reason}")
        assert member.get("/v1/datasets").json()["data"] == []
    assert files(api) == []
    dataset = upload(member).json()["id"]
    assert member.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_an_upload_that_is_larger_than_the_store_leaves_nothing_of_it(
    api: Api, member: httpx.Client, own_disks: dict[str, Disk]
) -> None:
    assert_unavailable(upload(member, rows(NOISE)), "No space left on device")
    assert files(api) == []


def test_an_upload_whose_shards_find_no_room_in_the_scratch_folder_leaves_nothing_of_it(
    api: Api, member: httpx.Client, own_disks: dict[str, Disk]
) -> None:
    content, filler = rows(TEXTS), own_disks["scratch"].folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(filler.parent).free - len(content) - 100_000))
    try:
        assert_unavailable(upload(member, content), "No space left on device")
    finally:
        filler.unlink()
    assert files(api) == []
    dataset = upload(member, content).json()["id"]
    assert member.delete(f"/v1/datasets/{dataset}").status_code == 204
